//! The act in which nobody commands anything: every process of the writer's region is killed, the
//! other region takes over by itself, and what was killed comes back as its standby.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::switch::Acknowledged;
use crate::api::{Api, Protected};
use crate::fault::region;
use crate::ledger::{Traffic, WritePath};
use crate::placement::Place;
use crate::progress::{Progress, tell};
use crate::state::LabState;

const TAKEN_OVER: Duration = Duration::from_secs(30);
const PROTECTED: Duration = Duration::from_secs(60);
const SETTLED: u64 = 30;
const WRITES: Duration = Duration::from_secs(15);
/// Without a replica no `WAIT` is answered.
const PATHS: [WritePath; 2] = [WritePath::Postgres, WritePath::Redis];

/// What came of it.
#[derive(Debug)]
pub struct LostRegion {
    /// Whose processes were killed.
    pub region: String,
    /// Which region took over.
    pub taken_by: String,
    /// What was acknowledged before.
    pub before: Acknowledged,
    /// When they were killed, since the start of the traffic.
    pub from: Duration,
    /// When clients wrote again.
    pub to: Duration,
    /// From when the region was started again until the stack was protected.
    pub protected_after: Duration,
}

/// Play it.
pub async fn play(
    state: &LabState,
    api: &Api,
    traffic: &Traffic,
    region: &str,
    progress: Progress,
) -> Result<LostRegion> {
    let mut state = state.clone();
    let others = Place::REGIONS.into_iter().map(Place::name);
    let other = others.clone().find(|name| *name != region).context("a stack has two regions")?;
    let before = Acknowledged::so_far(traffic);
    let from = traffic.elapsed();
    let killed = region::kill(&state, region).await?;
    tell!("    {killed} processes of {region} got SIGKILL; nobody commands anything");
    wait_for_writer(api, other).await?;
    let goals = PATHS.map(|path| traffic.acknowledged(path) + SETTLED);
    let deadline = Instant::now() + WRITES;
    while PATHS.iter().zip(goals).any(|(path, goal)| traffic.acknowledged(*path) < goal) {
        if Instant::now() >= deadline {
            bail!("clients do not write again although {other} is the writer");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let to = traffic.elapsed();
    tell!("    {other} is the writer, and clients write again");
    let begun = progress.seconds();
    let names = region::start_again(&mut state, region)?;
    tell!("    started again in {region}: {}", names.join(", "));
    match api.wait_protected(PROTECTED).await {
        (_, Protected::Yes) => {}
        (status, Protected::No) => bail!(
            "the stack is not protected {} s after {region} came back: {}",
            PROTECTED.as_secs(),
            status.map_or("no status".to_owned(), |status| status.to_string())
        ),
    }
    let protected_after = progress.seconds() - begun;
    tell!("    protected again {protected_after:.2} s after {region} came back");
    Ok(LostRegion {
        region: region.to_owned(),
        taken_by: other.to_owned(),
        before,
        from,
        to,
        protected_after: Duration::from_secs_f64(protected_after),
    })
}

async fn wait_for_writer(api: &Api, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + TAKEN_OVER;
    loop {
        let status = api.status().await;
        let writer = status.as_ref().ok().and_then(|status| status.get("current_region"));
        if writer.and_then(|writer| writer.as_str()) == Some(wanted) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{wanted} did not take over within {} s", TAKEN_OVER.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
