//! tier0's acts: there under traffic, protected again, back under traffic, everything read back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::by_itself;
use super::http::{self, Act, Devices};
use super::switch::{Acknowledged, Switch};
use super::verdict::{self, Evidence};
use crate::api::{Api, Protected};
use crate::ledger::{self, Targets, Traffic, TrafficPlan};
use crate::load::{self, HttpPlan};
use crate::placement::Place;
use crate::progress::{Progress, tell};
use crate::state::LabState;
use crate::traffic::summary_text;

const WARM_UP: u64 = 60;
/// Writers to PostgreSQL through PgBouncers.
const THROUGH_POOLS: usize = 8;
/// Writers through routers, to PostgreSQL and as many to Redis.
const THROUGH_ROUTERS: usize = 4;
const WRITES: Duration = Duration::from_secs(15);
const PROTECTED: Duration = Duration::from_secs(20);

/// The last act before everything is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The switch home.
    SwitchHome,
    /// A region is lost, and nobody commands anything.
    LostRegion,
}

/// Play them.
pub async fn play(state: &LabState, progress: Progress) -> Result<ExitCode> {
    let api = Api::of(state)?;
    let last = last_of(&api).await?;
    let stack = state.stack()?;
    let targets = Targets::of(&stack)?;
    let home = current_region(&api).await?;
    let other = Place::REGIONS
        .into_iter()
        .map(Place::name)
        .find(|name| *name != home)
        .context("a stack has two regions")?;
    let mut plan = TrafficPlan::moderate(super::ledger_directory(state));
    if targets.postgres.iter().any(|target| !target.pools.is_empty()) {
        plan.routed_writers = THROUGH_POOLS;
    }
    if targets.postgres.iter().any(|target| !target.routers.is_empty()) {
        plan.proxied_writers = THROUGH_ROUTERS;
    }
    if targets.redis.iter().any(|target| !target.routers.is_empty()) {
        plan.redis_proxied_writers = THROUGH_ROUTERS;
    }
    let http_plan = HttpPlan::moderate(plan.directory.clone());
    tell!(
        "\nAct 1  traffic in {home}: {} PostgreSQL writers, {} more through PgBouncer and {} through\n       \
         the router; {} Redis writers, {} of them with WAIT, and {} more through the router; {}\n       \
         devices that send readings to the backends over HTTP; every acknowledgement is noted\n       \
         outside both stores",
        plan.postgres_writers,
        plan.routed_writers,
        plan.proxied_writers,
        plan.redis_writers + plan.redis_wait_writers,
        plan.redis_wait_writers,
        plan.redis_proxied_writers,
        http_plan.devices,
    );
    let traffic = Traffic::start(&plan, &targets).await?;
    let mut devices = Devices::start(&http_plan, &stack).await?;
    traffic.wait_for_more(WARM_UP, WRITES).await?;
    said(&traffic);
    tell!("\nAct 2  move the whole data tier to {other} under this traffic");
    let since = devices.begin();
    let there = switch(&api, &traffic, other, progress).await?;
    devices.end(since, format!("to {other}"), Act::Planned).await?;
    tell!("\nAct 3  and back home to {home}: what was left behind has rejoined by itself");
    let since = devices.begin();
    let back = switch(&api, &traffic, &home, progress).await?;
    devices.end(since, format!("to {home}"), Act::Planned).await?;
    let lost_region = match last {
        Last::SwitchHome => None,
        Last::LostRegion => {
            tell!("\nAct 4  everything in {home} is killed");
            let since = devices.begin();
            let lost = by_itself::play(state, &api, &traffic, &home, progress).await?;
            devices.end(since, format!("{home} lost"), Act::Unplanned).await?;
            Some(lost)
        }
    };
    enough(&traffic).await?;
    let at_the_end = Acknowledged::so_far(&traffic);
    let (stretches, http_summary) = devices.stop().await?;
    let summary = traffic.stop().await?;
    let number = if lost_region.is_some() { 5 } else { 4 };
    tell!("\nAct {number}  stop, and read every acknowledged write back from the writer");
    let report = ledger::check(&plan.directory, &targets).await?;
    tell!("{}", indent(&summary_text(&summary)).trim_end());
    tell!("{}", indent(&load::summary_text(&http_summary)).trim_end());
    tell!("{}", indent(&report.text()).trim_end());
    let http = http::conditions(&stretches, &http_summary, &report);
    let evidence = Evidence {
        switches: vec![there, back],
        lost_region,
        at_the_end,
        plan,
        summary,
        report,
        http,
    };
    let verdict = verdict::judge(&evidence);
    tell!("\n{}", verdict.text().trim_end());
    Ok(verdict.exit_code())
}

async fn switch(api: &Api, traffic: &Traffic, target: &str, progress: Progress) -> Result<Switch> {
    let switch = Switch::command(api, traffic, target).await?;
    tell!("{}", switch.text());
    if !switch.succeeded() {
        bail!("the failover to {target} did not succeed");
    }
    said(traffic);
    let began = progress.seconds();
    match api.wait_protected(PROTECTED).await {
        (_, Protected::Yes) => {
            tell!("    protected again {:.2} s after writes settled", progress.seconds() - began);
            Ok(switch)
        }
        (status, Protected::No) => bail!(
            "the stack is not protected {} s after the switch: {}",
            PROTECTED.as_secs(),
            status.map_or("no status".to_owned(), |status| status.to_string())
        ),
    }
}

/// Wait until the run has enough writes for its verdict.
async fn enough(traffic: &Traffic) -> Result<()> {
    let wait = async {
        loop {
            let now = Acknowledged::so_far(traffic);
            if now.postgres.min(now.redis) >= verdict::NEEDED {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = tokio::time::timeout(WRITES, wait).await;
    reached.with_context(|| format!("no {} writes per store in time", verdict::NEEDED))
}

fn said(traffic: &Traffic) {
    let now = Acknowledged::so_far(traffic);
    tell!("    {} PostgreSQL and {} Redis writes acknowledged so far", now.postgres, now.redis);
}

async fn current_region(api: &Api) -> Result<String> {
    let status = api.status().await?;
    let region = status.get("current_region").and_then(|region| region.as_str());
    Ok(region.context("the status names no current_region")?.to_owned())
}

/// A stack that was up before may be one that does not act by itself.
async fn last_of(api: &Api) -> Result<Last> {
    let status = api.status().await?;
    let mode = status.pointer("/automatic/mode").and_then(|mode| mode.as_str());
    Ok(if mode == Some("armed") { Last::LostRegion } else { Last::SwitchHome })
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
