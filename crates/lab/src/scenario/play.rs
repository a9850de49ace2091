//! Playing a story: one step after the other, then everything is mended, then the ledger is read.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::file::{Ends, Scenario, Step};
use super::stage::Stage;
use crate::api::Protected;
use crate::fault::{self, Fault};
use crate::ledger::{self, CheckReport, Targets, Traffic, TrafficPlan, TrafficSummary, WritePath};
use crate::network::control::{Order, What};
use crate::network::{End, Network, link};
use crate::signals::Interruption;

/// How long the stack may take to be protected again after everything is mended.
const PROTECTED: Duration = Duration::from_secs(120);

/// How many more writes of each path show that clients are served in the end.
const SETTLED: u64 = 20;

/// How long they may take.
const WRITES: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug)]
pub struct Played {
    /// What was read back.
    pub report: CheckReport,
    /// What the writers counted.
    pub summary: TrafficSummary,
    /// How long after everything was mended the stack was protected, if it was.
    pub protected_after: Option<Duration>,
    /// How often the writer moved while the story was played, if that is known.
    pub moves: Option<u64>,
    /// Who was the writer in the end.
    pub writer: Option<String>,
    /// How long a PostgreSQL client waited at most.
    pub longest_wait: Option<Duration>,
}

/// Play it.
pub async fn play(
    stage: &mut Stage,
    interruption: &mut Interruption,
    scenario: &Scenario,
) -> Result<Played> {
    let (traffic, targets, plan) = stage.traffic().await?;
    traffic.wait_for_more(SETTLED, WRITES).await?;
    let before = epoch(stage).await;
    for step in &scenario.steps {
        tokio::select! {
            taken = take(stage, step) => taken?,
            signal = interruption.next() => bail!("{signal}: the story is not played to its end"),
        }
    }
    let mut played = finish(stage, traffic, &targets, &plan).await?;
    played.moves = before.zip(epoch(stage).await).map(|(before, after)| after - before);
    Ok(played)
}

/// Mend everything.
pub fn heal(stage: &mut Stage) -> Result<()> {
    if stage.state.network == Network::Namespaces {
        let lanes = End::ALL.into_iter().map(|end| link::between(end, None));
        let lanes = lanes.collect::<Result<Vec<_>>>()?.concat();
        link::of_lab(&stage.state, &[Order { lanes, what: What::Restore }])?;
    }
    for done in fault::heal(&mut stage.state, None)? {
        stage.progress.say(format!("healed: {done}"));
    }
    Ok(())
}

/// One step.
pub async fn take(stage: &mut Stage, step: &Step) -> Result<()> {
    let progress = stage.progress;
    match step {
        Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Step::Break(one) => {
            let (target, how) = one.parse()?;
            for done in fault::apply(&stage.state, &target, how).await? {
                progress.say(format!("{} {}: {done}", one.what, one.how));
            }
        }
        Step::Heal { what: None } => heal(stage)?,
        Step::Heal { what: Some(what) } => {
            for done in fault::heal(&mut stage.state, Some(&what.parse()?))? {
                progress.say(format!("healed: {done}"));
            }
        }
        Step::Link(bad) => {
            let (target, change) = bad.parse()?;
            let lanes = fault::lanes(&target)?.1;
            link::of_lab(&stage.state, &[Order { lanes, what: What::Change(change) }])?;
            progress.say(format!("{} is a bad link", bad.what));
        }
        Step::Flap { what, times, gone_ms, there_ms } => {
            let target = what.parse()?;
            for _ in 0..*times {
                fault::apply(&stage.state, &target, Fault::Cut).await?;
                tokio::time::sleep(Duration::from_millis(*gone_ms)).await;
                fault::heal(&mut stage.state, Some(&target))?;
                tokio::time::sleep(Duration::from_millis(*there_ms)).await;
            }
            progress.say(format!("{what} was gone {times} times, {gone_ms} ms each"));
        }
        Step::Failover { to, ends: Ends::Unseen } => {
            progress.say(format!("failover {to}"));
            let (api, to) = (stage.api.clone(), to.clone());
            tokio::spawn(async move {
                match api.failover(&to).await {
                    Ok(answer) => progress.say(format!("failover {to} answered {}", answer.status)),
                    Err(error) => progress.say(format!("failover {to}: {error:#}")),
                }
            });
        }
        Step::Failover { to, ends } => {
            let answer = stage.api.failover(to).await;
            let code = match &answer {
                Ok(answer) => answer.body.get("error").and_then(serde_json::Value::as_str),
                Err(_) => Some("no-answer"),
            };
            let text = match (&answer, code) {
                (_, Some(code)) => code.to_owned(),
                (Ok(answer), None) => {
                    let total = answer.seconds("/total_failover_time");
                    format!("succeeded in {:.3} s", total.unwrap_or_default())
                }
                (Err(error), None) => error.to_string(),
            };
            progress.say(format!("failover {to}: {text}"));
            let as_it_must = match ends {
                Ends::Succeeded => code.is_none(),
                Ends::Refused => answer.is_ok() && code.is_some(),
                Ends::Anyhow | Ends::Unseen => true,
            };
            if !as_it_must {
                bail!("failover {to} ended as {text}, and must end as {ends:?}");
            }
        }
        Step::Writer { is, within_ms } => {
            let began = Instant::now();
            wait_for_writer(stage, is, Duration::from_millis(*within_ms)).await?;
            progress
                .say(format!("the writer is {is} after {:.2} s", began.elapsed().as_secs_f64()));
        }
        Step::Protected { within_ms } => {
            let limit = Duration::from_millis(*within_ms);
            match stage.api.wait_protected(limit).await {
                (_, Protected::Yes) => progress.say("protected"),
                (status, Protected::No) => {
                    let status = status.map_or("no status".to_owned(), |status| status.to_string());
                    bail!("not protected within {limit:?}: {status}");
                }
            }
        }
    }
    Ok(())
}

async fn wait_for_writer(stage: &Stage, wanted: &str, limit: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        if writer(stage).await.as_deref() == Some(wanted) {
            return Ok(());
        }
        if began.elapsed() >= limit {
            bail!("{wanted} did not become the writer within {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Who is the writer, if the orchestrator answers.
async fn writer(stage: &Stage) -> Option<String> {
    let status = stage.api.status().await.ok()?;
    status.get("current_region")?.as_str().map(str::to_owned)
}

async fn epoch(stage: &Stage) -> Option<u64> {
    stage.api.status().await.ok()?.get("epoch")?.as_u64()
}

/// Mend everything, wait until all is well, and read every acknowledged write back.
pub async fn finish(
    stage: &mut Stage,
    traffic: Traffic,
    targets: &Targets,
    plan: &TrafficPlan,
) -> Result<Played> {
    heal(stage)?;
    let began = Instant::now();
    let (_, protected) = stage.api.wait_protected(PROTECTED).await;
    let protected_after = (protected == Protected::Yes).then(|| began.elapsed());
    traffic.wait_for_more(SETTLED, WRITES).await.context("clients are not served in the end")?;
    let summary = traffic.stop().await?;
    let report = ledger::check(&plan.directory, targets).await.context("check the ledger")?;
    let postgres = summary.path(WritePath::Postgres);
    let longest_wait = postgres.and_then(|path| path.latencies.largest()).map(|gap| gap.length());
    let writer = writer(stage).await;
    Ok(Played { report, summary, protected_after, moves: None, writer, longest_wait })
}
