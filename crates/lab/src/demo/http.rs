//! The demo's devices: readings over HTTP to the reference backends through every act, and what the
//! verdict says of them.

use std::time::Duration;

use anyhow::Result;
use tier0_config::Stack;

use super::verdict::Held;
use crate::ledger::{CheckReport, WritePath};
use crate::load::{HttpErrors, HttpPlan, HttpSummary, HttpTraffic};

/// How many further readings show that devices are served again.
const SETTLED: u64 = 100;
/// How long they may take.
const SERVED: Duration = Duration::from_secs(20);
/// Fewer acknowledged readings prove too little.
const NEEDED: u64 = 1_000;

/// Whether somebody commanded the act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A switch: no device may meet an error.
    Planned,
    /// Everything in a region was killed: a request to it has no answer, and the other region may say
    /// for a while that nothing is stored.
    Unplanned,
}

/// What devices met in one act.
#[derive(Debug)]
pub struct Stretch {
    what: String,
    act: Act,
    errors: HttpErrors,
    from: Duration,
    to: Duration,
}

/// Devices at work, and the acts so far.
#[derive(Debug)]
pub struct Devices {
    traffic: HttpTraffic,
    stretches: Vec<Stretch>,
}

/// Since when an act is played.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    errors: HttpErrors,
    from: Duration,
}

impl Devices {
    /// Start them.
    pub async fn start(plan: &HttpPlan, stack: &Stack) -> Result<Devices> {
        let traffic = HttpTraffic::start(plan, stack)?;
        traffic.wait_for_more(SETTLED, SERVED).await?;
        Ok(Devices { traffic, stretches: Vec::new() })
    }

    /// An act begins.
    pub fn begin(&self) -> Since {
        Since { errors: self.traffic.errors(), from: self.traffic.elapsed() }
    }

    /// An act ends once devices are served again.
    pub async fn end(&mut self, since: Since, what: String, act: Act) -> Result<()> {
        self.traffic.wait_for_more(SETTLED, SERVED).await?;
        let errors = self.traffic.errors().since(since.errors);
        let to = self.traffic.elapsed();
        self.stretches.push(Stretch { what, act, errors, from: since.from, to });
        Ok(())
    }

    /// Stop them, once they have sent enough for a verdict.
    pub async fn stop(self) -> Result<(Vec<Stretch>, HttpSummary)> {
        let missing = NEEDED.saturating_sub(self.traffic.acknowledged());
        self.traffic.wait_for_more(missing, SERVED).await?;
        Ok((self.stretches, self.traffic.stop().await?))
    }
}

/// The conditions on what they met, with their figures.
pub fn conditions(
    stretches: &[Stretch],
    summary: &HttpSummary,
    report: &CheckReport,
) -> Vec<(Held, String)> {
    let mut conditions = Vec::new();
    for stretch in stretches {
        let gap = summary.latencies.largest_between(stretch.from, stretch.to);
        let gap = gap.map_or("under 20".to_owned(), |gap| {
            format!("{:.0}", gap.length().as_secs_f64() * 1000.0)
        });
        let errors = stretch.errors;
        let (held, met) = match stretch.act {
            Act::Planned => (errors.all() == 0, format!("{} errors", errors.all())),
            Act::Unplanned => (errors.unexpected == 0, errors.text()),
        };
        let what = &stretch.what;
        conditions.push((held.into(), format!("HTTP, {what}: {met}; longest wait {gap} ms")));
    }
    let paths = [WritePath::Http];
    let checked = report.checked(&paths);
    let missing = report.missing(&paths).len();
    let enough = summary.acknowledged >= NEEDED && checked == summary.acknowledged;
    conditions.push((
        (enough && missing == 0).into(),
        format!(
            "HTTP: {} readings acknowledged, {checked} looked for, {missing} missing, {} given up",
            summary.acknowledged, summary.given_up
        ),
    ));
    conditions
}
