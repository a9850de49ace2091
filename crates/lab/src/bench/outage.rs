//! Faults, and how long nobody was served: seen by a prober outside both regions, in a lab of
//! network namespaces, so that a region can fall silent without anything being refused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::statistics::Figures;
use crate::api::{Api, Protected};
use crate::fault::{self, Fault, target::Target};
use crate::ledger::{self, Targets, Traffic, TrafficPlan, WritePath};
use crate::network::{End, Network};
use crate::placement::Place;
use crate::prober::{Outage, Probed, Prober, both_sides, outage};
use crate::progress::Progress;
use crate::state::LabState;

/// Accepted writes that make sure that a side serves.
const SERVES: usize = 20;
const SERVED: Duration = Duration::from_secs(30);
const COMMANDED: Duration = Duration::from_secs(30);
const PROTECTED: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(20);
const SLACK: Duration = Duration::from_millis(500);

/// Who moves the writer after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Commander {
    /// Nobody: the stack does it by itself.
    Nobody,
    /// The bench, as soon as the fault is done, and again until it is answered with success.
    Bench,
}

impl Commander {
    /// As a figure's name says it.
    pub fn name(self) -> &'static str {
        match self {
            Commander::Nobody => "nobody commands",
            Commander::Bench => "commanded at once",
        }
    }
}

/// The faults that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// SIGKILL to the writer's postmaster.
    PostmasterKilled,
    /// SIGKILL to the writer's Redis.
    RedisKilled,
    /// SIGKILL to every process of the writer's region.
    RegionKilled,
    /// Packets from and to the writer's region vanish.
    RegionSilent,
}

impl Case {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Case; 4] =
        [Case::PostmasterKilled, Case::RedisKilled, Case::RegionKilled, Case::RegionSilent];

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Case::PostmasterKilled => "postmaster killed",
            Case::RedisKilled => "Redis killed",
            Case::RegionKilled => "region killed",
            Case::RegionSilent => "region silent",
        }
    }

    /// What is asked of the median and of the worst, in milliseconds.
    pub fn wanted(self) -> (f64, f64) {
        match self {
            Case::PostmasterKilled => (300.0, 300.0),
            Case::RedisKilled => (500.0, 500.0),
            Case::RegionKilled => (1_000.0, 1_000.0),
            Case::RegionSilent => (1_200.0, 1_500.0),
        }
    }

    fn fault(self, state: &LabState, region: Place) -> Result<(Target, Fault)> {
        let datastores = state.stack()?.datastores;
        let first = |postgres: bool| {
            let mut of_kind = datastores.iter().filter(|one| one.postgres.is_some() == postgres);
            let found = of_kind.next().context("the stack has no such datastore")?;
            anyhow::Ok(Target::Process(format!("{}.{}", found.name, region.name())))
        };
        Ok(match self {
            Case::PostmasterKilled => (first(true)?, Fault::Kill),
            Case::RedisKilled => (first(false)?, Fault::Kill),
            Case::RegionKilled => (Target::Site(End::from(region)), Fault::Kill),
            Case::RegionSilent => (Target::Site(End::from(region)), Fault::Cut),
        })
    }
}

/// What the prober saw of one fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutageRun {
    /// What was done.
    pub case: Case,
    /// Its number within the case, from 1.
    pub number: usize,
    /// Whose region it was done to.
    pub from: String,
    /// Who moved the writer.
    pub commander: Commander,
    /// Milliseconds from the last accepted write before to the first accepted after, PostgreSQL.
    pub postgres_ms: f64,
    /// The same of Redis.
    pub redis_ms: f64,
    /// Milliseconds from the fault until the command was answered with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commanded_ms: Option<f64>,
    /// Commands that were answered otherwise before that.
    #[serde(default)]
    pub commands_refused: usize,
    /// Writes that the old PostgreSQL accepted although they were tried after the new one had
    /// accepted, until the stack was protected again.
    pub both_postgres: usize,
    /// The same of Redis.
    pub both_redis: usize,
    /// Seconds from mending until the stack was protected again.
    pub protected_s: f64,
}

/// One case's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutageSummary {
    /// Which case.
    pub case: Case,
    /// Who moved the writer.
    pub commander: Commander,
    /// Milliseconds, PostgreSQL.
    pub postgres: Figures,
    /// Milliseconds, Redis.
    pub redis: Figures,
    /// Seconds until protected again.
    pub protected: Figures,
    /// Writes of PostgreSQL that the old side accepted after the new one. Anything but zero is two
    /// writers.
    pub both_postgres: usize,
    /// The same of Redis.
    pub both_redis: usize,
}

impl OutageSummary {
    /// Of each case that was measured.
    pub fn of_all(runs: &[OutageRun]) -> Vec<OutageSummary> {
        Case::ALL.into_iter().filter_map(|case| OutageSummary::of(case, runs)).collect()
    }

    fn of(case: Case, runs: &[OutageRun]) -> Option<OutageSummary> {
        let runs: Vec<&OutageRun> = runs.iter().filter(|run| run.case == case).collect();
        let figures = |measure: fn(&OutageRun) -> f64| {
            let rounded = |run: &&OutageRun| (measure(run) * 1_000.0).round() / 1_000.0;
            Figures::of(&runs.iter().map(rounded).collect::<Vec<f64>>())
        };
        Some(OutageSummary {
            case,
            commander: runs.first()?.commander,
            postgres: figures(|run| run.postgres_ms)?,
            redis: figures(|run| run.redis_ms)?,
            protected: figures(|run| run.protected_s)?,
            both_postgres: runs.iter().map(|run| run.both_postgres).sum(),
            both_redis: runs.iter().map(|run| run.both_redis).sum(),
        })
    }
}

/// The figures on the terminal.
pub fn text(summaries: &[OutageSummary]) -> String {
    let Some(first) = summaries.first() else { return String::new() };
    let mut text = format!(
        "\nnobody served, by a prober outside both regions, {}: milliseconds\n{:<20} {:<11} {:>5} \
         {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        first.commander.name(),
        "",
        "",
        "runs",
        "min",
        "median",
        "worst",
        "wanted",
        "at worst"
    );
    for summary in summaries {
        let (median, worst) = summary.case.wanted();
        for (store, figures) in [("PostgreSQL", summary.postgres), ("Redis", summary.redis)] {
            text.push_str(&format!(
                "{:<20} {store:<11} {:>5} {:>9.1} {:>9.1} {:>9.1} {median:>9.0} {worst:>9.0}\n",
                summary.case.title(),
                figures.count,
                figures.min,
                figures.median,
                figures.max,
            ));
        }
        if summary.both_postgres + summary.both_redis > 0 {
            text.push_str(&format!(
                "{}: BOTH SIDES accepted writes: the old PostgreSQL {}, the old Redis {}\n",
                summary.case.title(),
                summary.both_postgres,
                summary.both_redis
            ));
        }
    }
    text
}

/// How the faults of a lab are measured.
pub struct Outages<'a> {
    /// The lab.
    pub state: &'a mut LabState,
    /// Runs of each case.
    pub runs: usize,
    /// Who moves the writer.
    pub commander: Commander,
    /// What is said meanwhile.
    pub progress: Progress,
}

impl Outages<'_> {
    /// Measure all cases that this lab can have, each run into `collected` at once. What cannot be
    /// measured is returned, one sentence each.
    pub async fn run(&mut self, collected: &mut Vec<OutageRun>) -> Result<Vec<String>> {
        let mut skipped = Vec::new();
        let targets = Targets::of(&self.state.stack()?)?;
        let prober = Prober::start(&targets).await?;
        let number = jiff::Timestamp::now().as_millisecond();
        let ledger = self.state.directory.join("ledger").join(number.to_string());
        let plan = TrafficPlan::moderate(ledger);
        let traffic = Traffic::start(&plan, &targets).await?;
        for case in Case::ALL {
            if case == Case::RegionSilent && self.state.network == Network::Loopback {
                skipped.push(format!("{}: the lab has no links to cut", case.title()));
                continue;
            }
            self.progress.say(format!("{} × {}", self.runs, case.title()));
            for number in 1..=self.runs {
                let run = self.one(case, number, &prober).await?;
                self.progress.say(line(&run));
                collected.push(run);
            }
        }
        drop(prober);
        let summary = traffic.stop().await?;
        let report = ledger::check(&plan.directory, &targets).await?;
        let promised = [WritePath::Postgres, WritePath::RedisWait];
        let missing = report.missing(&promised).len();
        self.progress.say(format!(
            "{} writes acknowledged meanwhile, {missing} of those that were promised are missing",
            summary.paths.iter().map(|path| path.acknowledged).sum::<u64>()
        ));
        if missing > 0 {
            bail!("{missing} acknowledged writes are missing:\n{}", report.text());
        }
        Ok(skipped)
    }

    async fn one(&mut self, case: Case, number: usize, prober: &Prober) -> Result<OutageRun> {
        let api = Api::of(self.state)?;
        let status = api.status().await?;
        let writer = status.get("current_region").and_then(|region| region.as_str());
        let sides = || Place::REGIONS.into_iter();
        let from = sides().find(|side| Some(side.name()) == writer).context("no writer")?;
        let to = sides().find(|side| *side != from).context("a stack has two regions")?;
        prober.wait_for(from, SERVES, prober.now(), SERVED).await?;
        let (target, what) = case.fault(self.state, from)?;
        let fault = prober.now();
        fault::apply(self.state, &target, what).await?;
        let (commanded_ms, commands_refused) = match self.commander {
            Commander::Nobody => (None, 0),
            Commander::Bench => {
                let refused = command(&api, to).await?;
                (Some(milliseconds(prober.now() - fault)), refused)
            }
        };
        prober.wait_for(to, SERVES, fault, SERVED).await?;
        let accepted = prober.accepted();
        let seen = |store: Probed| -> Result<Outage> {
            let found = outage(&accepted, store, fault);
            found.with_context(|| format!("{} was not probed around the fault", store.name()))
        };
        let (postgres, redis) = (seen(Probed::Postgres)?, seen(Probed::Redis)?);
        // Nothing is moved by itself again before this is over.
        let cool_down = Duration::from_millis(self.state.stack()?.limits.cool_down_ms);
        let rested = tokio::time::Instant::now() + cool_down + SLACK;
        let mended = Instant::now();
        fault::heal(self.state, None)?;
        match api.wait_protected(PROTECTED).await {
            (_, Protected::Yes) => {}
            (status, Protected::No) => bail!(
                "not protected {} s after {}: {}",
                PROTECTED.as_secs(),
                case.title(),
                status.map_or("no status".to_owned(), |status| status.to_string())
            ),
        }
        let protected_s = mended.elapsed().as_secs_f64();
        if self.commander == Commander::Nobody {
            tokio::time::sleep_until(rested).await;
        }
        let accepted = prober.accepted();
        Ok(OutageRun {
            case,
            number,
            from: from.name().to_owned(),
            commander: self.commander,
            postgres_ms: milliseconds(postgres.length()),
            redis_ms: milliseconds(redis.length()),
            commanded_ms,
            commands_refused,
            both_postgres: both_sides(&accepted, &postgres),
            both_redis: both_sides(&accepted, &redis),
            protected_s,
        })
    }
}

/// Command the move until it succeeds or has been done. Returns how often it did not.
async fn command(api: &Api, to: Place) -> Result<usize> {
    let deadline = Instant::now() + COMMANDED;
    let mut refused = 0;
    loop {
        let answer = api.failover(to.name()).await;
        let done = answer.as_ref().is_ok_and(|answer| {
            let code = answer.body.get("code").and_then(|code| code.as_str());
            answer.status == 200 || code == Some("already-writer")
        });
        if done {
            return Ok(refused);
        }
        refused += 1;
        if Instant::now() >= deadline {
            bail!("the failover to {} does not succeed: {answer:?}", to.name());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn line(run: &OutageRun) -> String {
    let refused = match run.commands_refused {
        0 => String::new(),
        count => format!(", after {count} commands that did not succeed"),
    };
    format!(
        "{:>3} {} in {}: PostgreSQL {:.0} ms, Redis {:.0} ms; protected again after {:.1} s{refused}",
        run.number,
        run.case.title(),
        run.from,
        run.postgres_ms,
        run.redis_ms,
        run.protected_s
    )
}
