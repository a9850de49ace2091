//! From runs to figures: every step, every column of the specification, the total and what clients
//! saw, as minimum, median, p99 and maximum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::{Build, Machine};
use super::measure::Collected;
use super::outage::OutageSummary;
use super::run::{Run, Section};
use super::settings::Settings;
use super::statistics::Figures;
use crate::ledger::{CheckReport, TrafficSummary, WritePath};

/// The version of the results' form.
pub const VERSION: u32 = 1;

/// A whole bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The version of this form.
    pub version: u32,
    /// When it began, RFC 3339.
    pub begun: String,
    /// When it ended.
    pub ended: String,
    /// Why it ended before all was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_short: Option<String>,
    /// What was measured.
    pub build: Build,
    /// On what.
    pub machine: Machine,
    /// How much.
    pub settings: Settings,
    /// The size that the large database had, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_bytes: Option<u64>,
    /// The parts that have runs.
    pub sections: Vec<SectionSummary>,
    /// The faults that a prober saw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<OutageSummary>,
    /// What was wanted and cannot be measured on this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SectionSummary {
    /// Which.
    pub section: Section,
    /// Operations.
    pub runs: usize,
    /// Those that succeeded; only these have figures.
    pub succeeded: usize,
    /// The errors of the others.
    pub errors: Vec<String>,
    /// Figures in milliseconds.
    pub rows: Vec<Row>,
    /// The ledger's, if the part was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerFigures>,
    /// Of the transactions that were open at the command: how many were committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_committed: Option<usize>,
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// The whole operation.
    Total,
    /// A column of the specification, or `prepare`.
    Column,
    /// Several steps, from the first begin to the last end.
    Span,
    /// One step.
    Step,
    /// A client's longest wait.
    Client,
    /// The longest time in which nobody was served.
    Unserved,
    /// Until protected again.
    After,
    /// The machine itself, just before the command.
    Machine,
}

/// One row of figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is about.
    pub group: Group,
    /// Its name.
    pub name: String,
    /// In milliseconds.
    pub figures: Figures,
}

/// What the ledger of one part says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerFigures {
    /// Acknowledged writes, by path.
    pub acknowledged: BTreeMap<WritePath, u64>,
    /// Those of them that are not there, by path.
    pub missing: BTreeMap<WritePath, u64>,
    /// Attempts that clients saw fail, refused or without an answer, by path.
    #[serde(default)]
    pub errors: BTreeMap<WritePath, u64>,
    /// Writes without an answer.
    pub unknown: u64,
    /// Attempts that were refused, and made again.
    pub failed: u64,
    /// Writes that are there twice.
    pub duplicates: u64,
    /// Keys that Redis threw away.
    pub evicted: u64,
}

/// The columns in the specification's order.
pub const COLUMNS: [&str; 6] = [
    "prepare",
    "health_check",
    "database_promotion",
    "redis_failover",
    "routing_update",
    "validation",
];

/// Steps that belong together: the PostgreSQL writer is away, Redis is closed.
const SPANS: [(&str, [&str; 2]); 2] = [
    ("stop, confirm and promote PostgreSQL", ["stop", "promote"]),
    ("Redis closed to writes", ["pause", "promote-redis"]),
];

impl LedgerFigures {
    /// From the writers' counts and what was read back.
    pub fn of(summary: &TrafficSummary, report: &CheckReport) -> LedgerFigures {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let paths = || summary.paths.iter().map(|path| path.path);
        LedgerFigures {
            acknowledged: summary.paths.iter().map(|path| (path.path, path.acknowledged)).collect(),
            missing: paths().map(|path| (path, count(report.missing(&[path]).len()))).collect(),
            errors: summary
                .paths
                .iter()
                .map(|path| (path.path, path.failed + path.unknown))
                .collect(),
            unknown: summary.paths.iter().map(|path| path.unknown).sum(),
            failed: summary.paths.iter().map(|path| path.failed).sum(),
            duplicates: count(report.duplicates().len()),
            evicted: report.evicted(),
        }
    }

    /// All acknowledged writes.
    pub fn all_acknowledged(&self) -> u64 {
        self.acknowledged.values().sum()
    }

    /// Missing writes that were promised. A Redis that dies takes along what no replica had:
    /// without `WAIT` its acknowledgement is no promise then.
    pub fn broken_promises(&self, section: Section) -> u64 {
        let promised = |path: &WritePath| {
            section != Section::Killed
                || !matches!(path, WritePath::Redis | WritePath::RedisProxied)
        };
        self.missing.iter().filter(|(path, _)| promised(path)).map(|(_, count)| count).sum()
    }

    /// In one line.
    pub fn text(&self) -> String {
        let listed = |counts: &BTreeMap<WritePath, u64>| {
            let all = counts.iter().map(|(path, count)| format!("{} {count}", path.name()));
            all.collect::<Vec<_>>().join(", ")
        };
        format!(
            "{} acknowledged, missing: {}; clients saw errors: {}; {} unknown, {} refused and tried \
             again, {} twice, {} evicted",
            self.all_acknowledged(),
            listed(&self.missing),
            listed(&self.errors),
            self.unknown,
            self.failed,
            self.duplicates,
            self.evicted
        )
    }
}

impl SectionSummary {
    /// The figures of a part; `None` where it has no runs.
    pub fn of(section: Section, collected: &Collected) -> Option<SectionSummary> {
        let runs: Vec<&Run> = collected.runs.iter().filter(|run| run.section == section).collect();
        let done: Vec<&Run> = runs.iter().copied().filter(|run| run.success).collect();
        let held = || runs.iter().filter_map(|run| run.open_transaction.as_ref());
        if runs.is_empty() {
            return None;
        }
        Some(SectionSummary {
            section,
            runs: runs.len(),
            succeeded: done.len(),
            errors: runs.iter().filter(|run| !run.success).map(|run| failure(run)).collect(),
            rows: rows(&done),
            ledger: collected
                .ledgers
                .iter()
                .find(|(of, _)| *of == section)
                .map(|(_, ledger)| ledger.clone()),
            open_committed: held()
                .next()
                .is_some()
                .then(|| held().filter(|held| held.committed).count()),
        })
    }

    /// The figures of one row.
    pub fn figures(&self, group: Group, name: &str) -> Option<Figures> {
        self.rows.iter().find(|row| row.group == group && row.name == name).map(|row| row.figures)
    }
}

impl Summary {
    /// The part, if it was measured.
    pub fn section(&self, section: Section) -> Option<&SectionSummary> {
        self.sections.iter().find(|one| one.section == section)
    }

    /// Everything that was wanted was measured, everything succeeded, and no promise was broken.
    pub fn is_good(&self) -> bool {
        self.cut_short.is_none()
            && self.outages.iter().all(|one| one.both_postgres + one.both_redis == 0)
            && self.sections.iter().all(|one| {
                let kept = |ledger: &LedgerFigures| {
                    ledger.broken_promises(one.section) == 0
                        && ledger.duplicates == 0
                        && ledger.evicted == 0
                };
                one.runs == one.succeeded && one.ledger.as_ref().is_some_and(kept)
            })
    }
}

fn failure(run: &Run) -> String {
    format!("{} to {}: {}", run.number, run.target, run.error.as_deref().unwrap_or("no reason"))
}

fn rows(runs: &[&Run]) -> Vec<Row> {
    let mut rows = Rows { runs, rows: Vec::new() };
    rows.add(Group::Total, "total", |run| run.total_s.map(|seconds| seconds * 1_000.0));
    rows.add(Group::Total, "as the caller saw it", |run| Some(run.caller_s * 1_000.0));
    for column in COLUMNS {
        rows.add(Group::Column, column, |run| {
            run.columns.get(column).map(|seconds| seconds * 1_000.0)
        });
    }
    for (name, steps) in SPANS {
        rows.add(Group::Span, name, |run| {
            // Where the first did not happen there is no such stretch.
            run.step_ms(steps[0])?;
            run.span_ms(&steps).map(|(begin, end)| end - begin)
        });
    }
    rows.add(Group::Span, "accepted to point of no return", |run| run.point_of_no_return_ms);
    for step in step_names(runs) {
        rows.add(Group::Step, &step, |run| run.step_ms(&step));
    }
    for path in WritePath::ALL {
        rows.add(Group::Client, path.name(), |run| {
            run.clients.iter().find(|view| view.path == path).map(|view| view.gap_ms)
        });
    }
    for path in WritePath::ALL {
        rows.add(Group::Unserved, path.name(), |run| {
            run.clients.iter().find(|view| view.path == path)?.unserved_ms
        });
    }
    rows.add(Group::After, "protected again", |run| {
        run.protected_s.map(|seconds| seconds * 1_000.0)
    });
    rows.add(Group::Machine, "one page made durable, before", |run| run.page_sync_ms);
    rows.rows
}

struct Rows<'a> {
    runs: &'a [&'a Run],
    rows: Vec<Row>,
}

impl Rows<'_> {
    fn add(&mut self, group: Group, name: &str, measure: impl Fn(&Run) -> Option<f64>) {
        let measured: Vec<f64> = self
            .runs
            .iter()
            .filter_map(|run| measure(run))
            // More digits than a clock has would be noise.
            .map(|milliseconds| (milliseconds * 1_000.0).round() / 1_000.0)
            .collect();
        if let Some(figures) = Figures::of(&measured) {
            self.rows.push(Row { group, name: name.to_owned(), figures });
        }
    }
}

/// All steps, in the order in which the answers name them.
fn step_names(runs: &[&Run]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        if !names.contains(&step.step) {
            names.push(step.step.clone());
        }
    }
    names
}
