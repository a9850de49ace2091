//! The measuring: traffic, the commands under it, and what each of them leads to.
//!
//! Whatever is known is put into [`Collected`] at once, so that an interruption loses only the
//! operation that was under way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::clients;
use super::large::{self, Held};
use super::machine;
use super::outage::OutageRun;
use super::run::{Run, Section, Window};
use super::settings::Settings;
use super::summary::LedgerFigures;
use crate::api::{Api, Protected};
use crate::fault::region;
use crate::ledger::{self, Targets, Traffic, TrafficPlan, WritePath};
use crate::placement::Place;
use crate::progress::Progress;
use crate::state::LabState;

/// Writes of every path between two operations.
const SETTLED: u64 = 30;
/// How long they may take.
const WRITES: Duration = Duration::from_secs(15);
const PROTECTED: Duration = Duration::from_secs(60);
const PROTECTED_LARGE: Duration = Duration::from_secs(300);

/// Everything that was measured so far.
#[derive(Debug, Default)]
pub struct Collected {
    /// The operations.
    pub runs: Vec<Run>,
    /// What the ledger of each finished section says.
    pub ledgers: Vec<(Section, LedgerFigures)>,
    /// The size of the large database in bytes.
    pub large_bytes: Option<u64>,
    /// What a prober saw of faults.
    pub outages: Vec<OutageRun>,
    /// What this machine cannot measure.
    pub skipped: Vec<String>,
    /// The ledger of the section that is under way.
    open_ledger: Option<(Section, PathBuf)>,
}

impl Collected {
    /// After an interruption: read what the unfinished section's ledger says about clients.
    pub fn close(&mut self) -> Result<()> {
        match self.open_ledger.take() {
            Some((section, directory)) => self.fill_in(section, &directory),
            None => Ok(()),
        }
    }

    fn fill_in(&mut self, section: Section, directory: &std::path::Path) -> Result<()> {
        let mut runs: Vec<&mut Run> =
            self.runs.iter_mut().filter(|run| run.section == section).collect();
        clients::fill_in(&mut runs, directory)
    }
}

/// One lab under measurement.
pub struct Bench<'a> {
    state: &'a mut LabState,
    settings: &'a Settings,
    api: Api,
    targets: Targets,
    progress: Progress,
    collected: &'a mut Collected,
}

impl<'a> Bench<'a> {
    /// Prepare to measure.
    pub fn new(
        state: &'a mut LabState,
        settings: &'a Settings,
        progress: Progress,
        collected: &'a mut Collected,
    ) -> Result<Bench<'a>> {
        let api = Api::of(state)?;
        let targets = Targets::of(&state.stack()?)?;
        Ok(Bench { state, settings, api, targets, progress, collected })
    }

    /// Measure all sections that are wanted.
    pub async fn run(&mut self) -> Result<()> {
        let settings = self.settings;
        self.section(Section::Switches, settings.pairs * 2).await?;
        self.section(Section::Killed, settings.kills).await?;
        if let Some(bytes) = settings.large_bytes {
            self.progress.say(format!("filling the database with {} MiB", bytes >> 20));
            let filled = large::fill(self.state, &self.targets, bytes, self.progress).await?;
            self.collected.large_bytes = Some(filled);
            self.protected(PROTECTED_LARGE).await?;
            self.section(Section::Large, settings.large_runs).await?;
            self.section(Section::LargeOpen, settings.large_runs).await?;
        }
        Ok(())
    }

    async fn section(&mut self, section: Section, runs: usize) -> Result<()> {
        if runs == 0 {
            return Ok(());
        }
        self.progress.say(format!("{runs} × {}", section.title()));
        let plan = self.plan()?;
        self.collected.open_ledger = Some((section, plan.directory.clone()));
        let traffic = Traffic::start(&plan, &self.targets).await?;
        for number in 1..=runs {
            traffic.wait_for_more(SETTLED, WRITES).await?;
            self.one(section, number, &traffic).await?;
        }
        let summary = traffic.stop().await?;
        let report = ledger::check(&plan.directory, &self.targets).await?;
        self.progress.say(format!("read back: {}", LedgerFigures::of(&summary, &report).text()));
        self.collected.ledgers.push((section, LedgerFigures::of(&summary, &report)));
        self.collected.fill_in(section, &plan.directory)?;
        self.collected.open_ledger = None;
        Ok(())
    }

    fn plan(&self) -> Result<TrafficPlan> {
        let number = jiff::Timestamp::now().as_millisecond();
        let directory = self.state.directory.join("ledger").join(number.to_string());
        let redis = self.settings.redis_writers;
        Ok(TrafficPlan {
            redis_writers: redis.div_ceil(2),
            redis_wait_writers: redis / 2,
            rate: self.settings.rate,
            ..TrafficPlan::moderate(directory)
        }
        .with_postgres(self.settings.postgres_writers, self.settings.through))
    }

    async fn one(&mut self, section: Section, number: usize, traffic: &Traffic) -> Result<()> {
        let old = self.writer().await?;
        let target = other(&old)?;
        let page_sync = machine::page_sync(&self.state.directory).await;
        let from = traffic.elapsed();
        let kill_began = Instant::now();
        if section == Section::Killed {
            region::kill(self.state, &old).await?;
        }
        let kill_to_command = kill_began.elapsed();
        let held = match section {
            Section::LargeOpen => Some(Held::begin(&self.targets).await?),
            Section::Switches | Section::Killed | Section::Large => None,
        };
        let asked = Instant::now();
        let answer = self.api.failover(target).await?;
        let mut run = Run::answered(section, number, target, &answer, asked.elapsed());
        let answered = Instant::now();
        run.page_sync_ms = page_sync.map(|time| time.as_secs_f64() * 1_000.0);
        let written = written(traffic, section).await;
        run.window = Window::between(from, traffic.elapsed());
        if let Some(held) = held {
            run.open_transaction = Some(held.end().await);
        }
        let mut since = answered;
        if section == Section::Killed {
            run.kill_to_command_ms = Some(kill_to_command.as_secs_f64() * 1_000.0);
            since = Instant::now();
            region::start_again(self.state, &old)?;
        }
        self.progress.say(line(&run));
        let place = self.collected.runs.len();
        self.collected.runs.push(run);
        written?;
        let limit = match section {
            Section::Switches | Section::Killed => PROTECTED,
            Section::Large | Section::LargeOpen => PROTECTED_LARGE,
        };
        self.protected(limit).await?;
        if let Some(run) = self.collected.runs.get_mut(place) {
            run.protected_s = Some(since.elapsed().as_secs_f64());
        }
        Ok(())
    }

    async fn writer(&self) -> Result<String> {
        let status = self.api.status().await?;
        let region = status.get("current_region").and_then(|region| region.as_str());
        Ok(region.context("the status names no current_region")?.to_owned())
    }

    async fn protected(&self, limit: Duration) -> Result<()> {
        match self.api.wait_protected(limit).await {
            (_, Protected::Yes) => Ok(()),
            (status, Protected::No) => bail!(
                "not protected after {} s: {}",
                limit.as_secs(),
                status.map_or("no status".to_owned(), |status| status.to_string())
            ),
        }
    }
}

fn other(region: &str) -> Result<&'static str> {
    let mut names = Place::REGIONS.into_iter().map(Place::name);
    names.find(|name| *name != region).context("a stack has two regions")
}

/// Wait until clients write again. While a region is dead, nobody can acknowledge a `WAIT`.
async fn written(traffic: &Traffic, section: Section) -> Result<()> {
    if section != Section::Killed {
        return traffic.wait_for_more(SETTLED, WRITES).await;
    }
    // Those that have no writers acknowledge nothing.
    let mut paths = WritePath::ALL.to_vec();
    paths.retain(|path| *path != WritePath::RedisWait && traffic.acknowledged(*path) > 0);
    let goals: Vec<u64> = paths.iter().map(|path| traffic.acknowledged(*path) + SETTLED).collect();
    let deadline = Instant::now() + WRITES;
    while paths.iter().zip(&goals).any(|(path, goal)| traffic.acknowledged(*path) < *goal) {
        if Instant::now() >= deadline {
            bail!("clients do not write again after the failover");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn line(run: &Run) -> String {
    let column = |name: &str| {
        run.columns.get(name).map_or("-".to_owned(), |seconds| format!("{:.0}", seconds * 1_000.0))
    };
    match (run.success, run.total_s) {
        (true, Some(total)) => format!(
            "{:>3} to {}: {:.0} ms (database promotion {}, redis failover {}, validation {})",
            run.number,
            run.target,
            total * 1_000.0,
            column("database_promotion"),
            column("redis_failover"),
            column("validation"),
        ),
        _ => format!(
            "{:>3} to {}: answer {}: {}",
            run.number,
            run.target,
            run.status,
            run.error.as_deref().unwrap_or("no reason given")
        ),
    }
}
