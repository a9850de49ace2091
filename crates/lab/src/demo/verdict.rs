//! The verdict: each condition as a sentence with its figures, and all of them must hold.

use std::process::ExitCode;
use std::time::Duration;

use super::by_itself::LostRegion;
use super::routed;
use super::switch::{Acknowledged, Switch};
use crate::ledger::{CheckReport, TrafficPlan, TrafficSummary, WritePath};

/// Fewer acknowledged writes per store prove too little.
pub const NEEDED: u64 = 1_000;

/// Everything the verdict rests on.
#[derive(Debug)]
pub struct Evidence {
    /// The switches, in order.
    pub switches: Vec<Switch>,
    /// The region that was lost after them, if that was played.
    pub lost_region: Option<LostRegion>,
    /// What was acknowledged when the traffic ended.
    pub at_the_end: Acknowledged,
    /// What was written.
    pub plan: TrafficPlan,
    /// What the writers counted.
    pub summary: TrafficSummary,
    /// What was read back.
    pub report: CheckReport,
    /// What devices met that send over HTTP.
    pub http: Vec<(Held, String)>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl From<bool> for Held {
    fn from(condition: bool) -> Held {
        if condition { Held::Yes } else { Held::No }
    }
}

/// What was concluded.
#[derive(Debug)]
pub struct Verdict {
    gaps: Vec<String>,
    conditions: Vec<(Held, String)>,
}

/// The ways to Redis.
pub const REDIS: [WritePath; 3] = [WritePath::Redis, WritePath::RedisWait, WritePath::RedisProxied];

/// Conclude.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut conditions = Vec::new();
    for switch in &evidence.switches {
        let total = switch.answer.seconds("/total_failover_time");
        let total = total.map_or("no time".to_owned(), |total| format!("{total:.3} s"));
        let sentence = format!("the switch to {} succeeded: {total}", switch.target);
        conditions.push((switch.succeeded().into(), sentence));
    }
    if let Some(lost) = &evidence.lost_region {
        // That the writer moved and the stack was protected again is waited for by the act.
        conditions.push((
            Held::Yes,
            format!(
                "{} was lost, {} took over by itself, and all was protected {:.2} s after {} came \
                 back",
                lost.region,
                lost.taken_by,
                lost.protected_after.as_secs_f64(),
                lost.region
            ),
        ));
    }
    conditions.extend(routed::conditions(&evidence.switches, &evidence.plan, &evidence.summary));
    let mut stores = vec![("PostgreSQL", &[WritePath::Postgres][..]), ("Redis", &REDIS[..])];
    for (store, paths) in [
        ("PostgreSQL through PgBouncer", &[WritePath::Routed]),
        ("PostgreSQL through the router", &[WritePath::Proxied]),
    ] {
        if evidence.summary.path(paths[0]).is_some() {
            stores.push((store, paths));
        }
    }
    for (store, paths) in stores {
        let acknowledged: u64 = paths
            .iter()
            .filter_map(|path| evidence.summary.path(*path))
            .map(|summary| summary.acknowledged)
            .sum();
        let checked = evidence.report.checked(paths);
        let missing = evidence.report.missing(paths).len();
        conditions.push((
            (acknowledged >= NEEDED && checked == acknowledged).into(),
            format!("{store}: {acknowledged} writes acknowledged, {checked} read back"),
        ));
        // What a Redis that dies had acknowledged without `WAIT` is no promise; it is counted.
        let promised = match (&evidence.lost_region, store) {
            (Some(_), "Redis") => evidence.report.missing(&[WritePath::RedisWait]).len(),
            _ => missing,
        };
        let unwaited = match missing - promised {
            0 => String::new(),
            count => format!(", and {count} that no replica had confirmed"),
        };
        conditions.push((
            (promised == 0).into(),
            format!("{store}: {promised} acknowledged writes missing{unwaited}"),
        ));
    }
    conditions.extend(evidence.http.iter().cloned());
    conditions.push((
        every_stretch_has_writes(evidence).into(),
        "both stores acknowledged writes before, between and after the switches".to_owned(),
    ));
    let twice = evidence.report.duplicates().len();
    conditions.push(((twice == 0).into(), format!("{twice} writes are there twice")));
    let evicted = evidence.report.evicted();
    conditions.push(((evicted == 0).into(), format!("{evicted} keys evicted by Redis")));
    let switches = evidence
        .switches
        .iter()
        .map(|switch| (format!("switch to {}", switch.target), switch.from, switch.to));
    let lost = evidence
        .lost_region
        .iter()
        .map(|lost| (format!("{} lost", lost.region), lost.from, lost.to));
    let gaps =
        switches.chain(lost).map(|(what, from, to)| gap_text(&what, from, to, &evidence.summary));
    Verdict { gaps: gaps.collect(), conditions }
}

fn every_stretch_has_writes(evidence: &Evidence) -> bool {
    let mut marks = vec![Acknowledged { postgres: 0, redis: 0 }];
    marks.extend(evidence.switches.iter().map(|switch| switch.before));
    marks.extend(evidence.lost_region.iter().map(|lost| lost.before));
    marks.push(evidence.at_the_end);
    marks.windows(2).all(|pair| match pair {
        [from, to] => to.postgres > from.postgres && to.redis > from.redis,
        _ => false,
    })
}

fn gap_text(what: &str, from: Duration, to: Duration, summary: &TrafficSummary) -> String {
    let waits: Vec<String> = summary
        .paths
        .iter()
        .map(|path| {
            let gap = path.latencies.largest_between(from, to);
            let length = gap.map_or("under 20 ms".to_owned(), |gap| {
                format!("{:.0} ms", milliseconds(gap.length()))
            });
            format!("{} {length}", path.path.name())
        })
        .collect();
    format!("longest a client waited, {what}: {}", waits.join(" · "))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Verdict {
    fn holds(&self) -> bool {
        self.conditions.iter().all(|(held, _)| *held == Held::Yes)
    }

    /// For the shell.
    pub fn exit_code(&self) -> ExitCode {
        if self.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for gap in &self.gaps {
            text.push_str(&format!("  {gap}\n"));
        }
        for (held, sentence) in &self.conditions {
            let mark = match held {
                Held::Yes => "ok    ",
                Held::No => "FAILED",
            };
            text.push_str(&format!("  {mark} {sentence}\n"));
        }
        text.push_str(if self.holds() {
            "Verdict: the tier moved there and back, and no acknowledged write was lost.\n"
        } else {
            "Verdict: NOT as promised; see the lines marked FAILED.\n"
        });
        text
    }
}
