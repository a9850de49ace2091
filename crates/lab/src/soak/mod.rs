//! `lab soak`: rounds of drawn faults on a real lab under traffic, until the writer has moved a given
//! number of times; every few rounds each acknowledged write is read back.
//!
//! The seed is printed first. The same seed draws the same rounds; when exactly a real process meets
//! them is the machine's affair. A soak may be interrupted at any time: what it came to is judged and
//! appended to the results, and the same command goes on from there. One that found something ends, and
//! leaves the files of its lab to whoever looks into it.

mod draw;
mod results;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::task::JoinSet;

use self::results::{Stretch, Total};
use crate::api::{Api, Protected};
use crate::bench::machine::Build;
use crate::command::Which;
use crate::ledger::{self, Targets, WritePath};
use crate::progress::{Progress, tell};
use crate::scenario::{self, Apart, Played, Stage, Stay, Step, with_lab};
use crate::signals::Interruption;

/// How long the stack may take to be protected again after a round.
const PROTECTED: Duration = Duration::from_secs(120);

/// After so many rounds every write is read back.
const STRETCH: u64 = 8;

/// How many writes each client attempts each second: hours of them must fit into memory.
const RATE: f64 = 10.0;

/// Break drawn things under traffic until the writer has moved often enough, and read every write back.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// How often the writer is to move, with what the results hold already.
    #[arg(long, default_value_t = 20)]
    pub moves: u64,
    /// What is drawn from; the one the results end with, or another one each time.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The first round; the one after those in the results if it is not said.
    #[arg(long)]
    pub from_round: Option<u64>,
    /// Let the sites be network namespaces, so that links are cut as well; needs root.
    #[arg(long)]
    pub netns: bool,
    /// Append what came of it to this file, a line of JSON for every few rounds, and go on from it.
    #[arg(long)]
    pub results: Option<PathBuf>,
    /// Leave the stack up.
    #[arg(long)]
    pub keep: bool,
}

/// Where a soak is.
struct Soak {
    seed: u64,
    apart: Apart,
    next_round: u64,
    /// The epoch when all was last well.
    epoch: u64,
    /// The ledger of the stretch before.
    before: Option<PathBuf>,
}

/// What is counted in a stretch.
#[derive(Debug, Default)]
struct Counted {
    faults: u64,
    overlapping: Option<u64>,
    moves: u64,
    commanded: u64,
    protected_worst: Duration,
}

/// Soak. The exit code says whether anything was lost or stayed broken.
pub async fn run(arguments: &SoakArgs) -> Result<ExitCode> {
    let mut total = match &arguments.results {
        Some(path) => Total::read(path)?,
        None => Total::default(),
    };
    if total.sum(Stretch::proven_moves) >= arguments.moves {
        tell!("{}", total.text());
        return Ok(ExitCode::SUCCESS);
    }
    let now = jiff::Timestamp::now().as_second().unsigned_abs();
    let seed = arguments.seed.or(total.stretches.last().map(|one| one.seed)).unwrap_or(now);
    let from_round = arguments.from_round.or(total.next_round(seed)).unwrap_or(1);
    let apart = if arguments.netns { Apart::Namespaces } else { Apart::Loopback };
    let netns = if arguments.netns { " --netns" } else { "" };
    tell!("seed {seed}; again: tier0 lab soak{netns} --seed {seed} --from-round {from_round}");
    let stay = if arguments.keep { Stay::Up } else { Stay::GoneIfWell };
    with_lab(&arguments.which, apart, stay, async |stage, interruption| {
        let epoch = protected_epoch(stage, PROTECTED).await.context("it never was protected")?;
        let mut soak = Soak { seed, apart, next_round: from_round, epoch, before: None };
        loop {
            let left = arguments.moves.saturating_sub(total.sum(Stretch::proven_moves));
            let (stretch, interrupted) = soak.stretch(stage, interruption, left).await?;
            if let Some(path) = &arguments.results {
                results::append(path, &stretch)?;
            }
            let failed = stretch.failure.is_some() || stretch.lost > 0 || stretch.twice > 0;
            if let Some(failure) = &stretch.failure {
                tell!("FAILED: {failure}");
            }
            total.stretches.push(stretch);
            tell!("\n{}", total.text());
            if failed {
                return Ok(ExitCode::FAILURE);
            }
            if interrupted || total.sum(Stretch::proven_moves) >= arguments.moves {
                return Ok(ExitCode::SUCCESS);
            }
        }
    })
    .await
}

impl Soak {
    /// A few rounds, then the ledger; and whether somebody asked for the end.
    async fn stretch(
        &mut self,
        stage: &mut Stage,
        interruption: &mut Interruption,
        moves: u64,
    ) -> Result<(Stretch, bool)> {
        let began = Instant::now();
        let from_round = self.next_round;
        let (traffic, targets, plan) = stage.traffic_of(RATE).await?;
        let mut counted = Counted::default();
        let (mut interrupted, mut failure) = (false, None);
        while self.next_round < from_round + STRETCH && counted.moves < moves {
            match self.round(stage, interruption, &mut counted).await {
                Ok(None) => self.next_round += 1,
                Ok(Some(signal)) => {
                    tell!("{signal}: what there is is read back; the same command goes on");
                    interrupted = true;
                    break;
                }
                Err(error) => {
                    failure = Some(format!("{error:#}"));
                    // It was played; the same command goes on behind it, on a lab that is whole.
                    self.next_round += 1;
                    break;
                }
            }
        }
        let mut stretch = self.begun(from_round, &counted);
        match scenario::finish(stage, traffic, &targets, &plan).await {
            Ok(played) => {
                add(&mut stretch, &played);
                if played.protected_after.is_none() && failure.is_none() {
                    failure = Some("not protected in the end".to_owned());
                }
            }
            Err(error) => failure = failure.or(Some(format!("{error:#}"))),
        }
        if let Some(before) = self.before.replace(plan.directory.clone()) {
            match lost_since(&before, &targets).await {
                Ok(lost) => stretch.lost += lost,
                Err(error) => failure = failure.or(Some(format!("{error:#}"))),
            }
        }
        if failure.is_none() && stretch.lost == 0 {
            forget_what_diverged(stage)?;
        }
        stretch.failure = failure;
        stretch.seconds = began.elapsed().as_secs();
        Ok((stretch, interrupted))
    }

    fn begun(&self, from_round: u64, counted: &Counted) -> Stretch {
        let sites = match self.apart {
            Apart::Loopback => "loopback",
            Apart::Namespaces => "namespaces",
        };
        let commit = std::env::current_exe().map(|binary| {
            let build = Build::of(&binary);
            let changed = if build.working_tree == "changed" { "-changed" } else { "" };
            format!("{}{changed}", build.commit)
        });
        Stretch {
            ended: jiff::Timestamp::now().to_string(),
            commit: commit.unwrap_or_else(|_| "unknown".to_owned()),
            seed: self.seed,
            sites: sites.to_owned(),
            from_round,
            next_round: self.next_round,
            seconds: 0,
            faults: counted.faults,
            overlapping: counted.overlapping,
            moves: counted.moves,
            commanded: counted.commanded,
            acknowledged: 0,
            lost: 0,
            twice: 0,
            unconfirmed_gone: 0,
            unknown: 0,
            worst_wait_ms: 0,
            protected_worst_s: counted.protected_worst.as_secs_f64(),
            failure: None,
        }
    }

    /// One round; the signal that broke it off.
    async fn round(
        &mut self,
        stage: &mut Stage,
        interruption: &mut Interruption,
        counted: &mut Counted,
    ) -> Result<Option<&'static str>> {
        let began = Instant::now();
        let number = self.next_round;
        tell!("\nround {number} of seed {}", self.seed);
        let mut operators = JoinSet::new();
        let mut signal = None;
        let (mut broken, mut most) = (BTreeSet::new(), 0);
        for (at, step) in draw::round(self.seed, number, self.apart) {
            let due = began + Duration::from_millis(at);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                next = interruption.next() => signal = Some(next),
            }
            if signal.is_some() {
                break;
            }
            match step {
                // What breaks meanwhile does not wait for the answer.
                Step::Failover { .. } => {
                    operators.spawn(move_away(stage.api.clone(), stage.progress));
                }
                // What is gone already cannot be broken again.
                step => match (scenario::take(stage, &step).await, step) {
                    (Ok(()), Step::Break(one)) => {
                        counted.faults += 1;
                        broken.insert(one.what);
                        most = most.max(broken.len() as u64);
                    }
                    (Ok(()), Step::Heal { what: Some(what) }) => {
                        broken.remove(&what);
                    }
                    (Ok(()), _) => {}
                    (Err(error), step) => stage.progress.say(format!("{step:?}: {error:#}")),
                },
            }
        }
        if signal.is_none() {
            counted.overlapping = Some(counted.overlapping.map_or(most, |least| least.min(most)));
        }
        scenario::heal(stage)?;
        let healed = Instant::now();
        for succeeded in operators.join_all().await {
            counted.commanded += u64::from(succeeded);
        }
        let whole = tokio::select! {
            whole = self.whole_again(stage, counted) => whole,
            next = interruption.next() => return Ok(Some(signal.unwrap_or(next))),
        };
        whole.with_context(|| format!("round {number} of seed {}", self.seed))?;
        let took = healed.elapsed();
        counted.protected_worst = counted.protected_worst.max(took);
        tell!("protected again after {:.1} s; {} moves so far", took.as_secs_f64(), counted.moves);
        if signal.is_none() {
            // And one on a calm day, under the same traffic.
            counted.commanded += u64::from(move_away(stage.api.clone(), stage.progress).await);
            self.whole_again(stage, counted).await.context("after a move with all well")?;
        }
        Ok(signal)
    }

    /// Wait until all is well, and count what the writer has moved.
    async fn whole_again(&mut self, stage: &Stage, counted: &mut Counted) -> Result<()> {
        let epoch = protected_epoch(stage, PROTECTED).await?;
        let moves = epoch.checked_sub(self.epoch);
        counted.moves += moves.with_context(|| format!("epoch {epoch} after {}", self.epoch))?;
        self.epoch = epoch;
        Ok(())
    }
}

/// An operator moves the writer to the other region; whether that was answered as done.
async fn move_away(api: Api, progress: Progress) -> bool {
    let writer = api.status().await.ok();
    let writer = writer.as_ref().and_then(|status| status.get("current_region")?.as_str());
    // Who finds nobody to ask tries one of them.
    let to = if writer == Some("region1") { "region2" } else { "region1" };
    let answer = api.failover(to).await;
    let text = |name: &str| match &answer {
        Ok(answer) => answer.body.get(name).and_then(serde_json::Value::as_str).map(str::to_owned),
        Err(_) => Some("no answer".to_owned()),
    };
    match text("error") {
        Some(error) => progress.say(format!("failover {to}: {error}")),
        None => progress.say(format!("failover {to}: succeeded")),
    }
    text("error").is_none()
}

/// Wait until all is well, and say the epoch.
async fn protected_epoch(stage: &Stage, limit: Duration) -> Result<u64> {
    let (status, protected) = stage.api.wait_protected(limit).await;
    let text = status.as_ref().map_or("no status".to_owned(), serde_json::Value::to_string);
    let epoch = status.and_then(|status| status.get("epoch")?.as_u64());
    match (protected, epoch) {
        (Protected::Yes, Some(epoch)) => Ok(epoch),
        _ => bail!("not protected {limit:?} after all was mended: {text}"),
    }
}

const PROMISED: [WritePath; 2] = [WritePath::Postgres, WritePath::RedisWait];

/// What is gone of a stretch that was read back before. Its ledger goes if that is nothing.
async fn lost_since(ledger: &Path, targets: &Targets) -> Result<u64> {
    let report = ledger::check(ledger, targets).await.context("read the stretch before again")?;
    let lost = report.missing(&PROMISED).len() as u64;
    if lost == 0 {
        std::fs::remove_dir_all(ledger).context("remove a ledger that was read twice")?;
    }
    Ok(lost)
}

/// Remove what nodes kept of what had diverged: nothing that was promised is missing, so nobody needs
/// it, and hours of it would fill the disk.
fn forget_what_diverged(stage: &Stage) -> Result<()> {
    for node in stage.state.stack()?.datastores.iter().flat_map(|one| &one.nodes) {
        let data = &node.data_directory;
        let (Some(beside), Some(name)) = (data.parent(), data.file_name()) else { continue };
        let kept = format!("{}.diverged-", name.to_string_lossy());
        for entry in std::fs::read_dir(beside).context("look for what diverged")?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&kept) {
                std::fs::remove_dir_all(entry.path()).context("remove what diverged")?;
            }
        }
    }
    Ok(())
}

/// Add what was read back to what was counted.
fn add(stretch: &mut Stretch, played: &Played) {
    let report = &played.report;
    stretch.acknowledged = report.checked(&WritePath::ALL);
    stretch.lost = report.missing(&PROMISED).len() as u64;
    stretch.twice = report.duplicates().len() as u64;
    stretch.unconfirmed_gone = report.missing(&[WritePath::Redis]).len() as u64;
    stretch.unknown = played.summary.paths.iter().map(|path| path.unknown).sum();
    let wait = played.longest_wait.unwrap_or_default().as_millis();
    stretch.worst_wait_ms = u64::try_from(wait).unwrap_or(u64::MAX);
}
