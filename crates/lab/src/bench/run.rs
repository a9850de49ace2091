//! One measured operation: what was commanded, what was answered, what clients saw.
//!
//! A run is one JSON line of the raw results. The answer is read loosely, as any client would.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::FailoverAnswer;
use crate::ledger::WritePath;

/// The parts of a bench. Each has its own ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Both regions are well; the writer moves there and back.
    Switches,
    /// Every process of the writer's region was killed before the command.
    Killed,
    /// Like `Switches`, with a large database.
    Large,
    /// Like `Large`, with a transaction open at the time of the command.
    LargeOpen,
}

impl Section {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Section; 4] =
        [Section::Switches, Section::Killed, Section::Large, Section::LargeOpen];

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Section::Switches => "switch, both regions well",
            Section::Killed => "failover, every process of the writer's region killed",
            Section::Large => "switch, large database",
            Section::LargeOpen => "switch, large database and an open transaction",
        }
    }
}

/// One step as answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// Its name.
    pub step: String,
    /// Of which datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Milliseconds after acceptance at which it began.
    pub begin_ms: f64,
    /// Milliseconds after acceptance at which it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<f64>,
    /// How it ended.
    pub outcome: String,
    /// How often it was tried.
    pub attempts: u32,
}

impl StepTimes {
    /// When it ended, if it did what it is for.
    pub fn done_at(&self) -> Option<f64> {
        self.end_ms.filter(|_| self.outcome.starts_with("done"))
    }
}

/// What the clients of one path saw around the operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClientView {
    /// Which path.
    pub path: WritePath,
    /// The longest time from when a write was due until it was acknowledged.
    pub gap_ms: f64,
    /// The longest time in which no write of anybody was acknowledged; older results do not say.
    #[serde(default)]
    pub unserved_ms: Option<f64>,
    /// Writes without an answer.
    pub unknown: u64,
}

/// What became of the transaction that was open at the time of the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// It was committed.
    pub committed: bool,
    /// Milliseconds from its begin to its end.
    pub open_ms: f64,
    /// How it ended.
    pub end: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The part of the bench.
    pub section: Section,
    /// Its number within the section, from 1.
    pub number: usize,
    /// Where the writer was to go.
    pub target: String,
    /// When it was answered, by the wall clock.
    pub answered: String,
    /// The machine's load average over a minute at that time, the bench's own load included.
    pub load: f64,
    /// Milliseconds that the disk took to make one page durable, just before the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_sync_ms: Option<f64>,
    /// The answer's HTTP status.
    pub status: u16,
    /// The answer's `success`.
    pub success: bool,
    /// The answer's `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `total_failover_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_s: Option<f64>,
    /// The same, from the request to the answer as the caller saw it.
    pub caller_s: f64,
    /// The specification's columns, and `prepare`.
    pub columns: BTreeMap<String, f64>,
    /// Every step.
    pub steps: Vec<StepTimes>,
    /// Milliseconds to the point of no return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_of_no_return_ms: Option<f64>,
    /// Things worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Milliseconds from the first kill to the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_to_command_ms: Option<f64>,
    /// Seconds until the stack was protected again: from the answer, or from when the killed
    /// region's processes were started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_s: Option<f64>,
    /// What clients saw, once the ledger was read.
    #[serde(default)]
    pub clients: Vec<ClientView>,
    /// The transaction that was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_transaction: Option<OpenTransaction>,
    /// The stretch of the traffic that belongs to it.
    pub window: Window,
}

/// A stretch of the traffic, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From here, in microseconds.
    pub from_us: u64,
    /// To here.
    pub to_us: u64,
}

impl Window {
    /// The stretch between two moments.
    pub fn between(from: Duration, to: Duration) -> Window {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Window { from_us: micros(from), to_us: micros(to) }
    }
}

impl Run {
    /// A run with what the answer says; the rest is filled in as it becomes known.
    pub fn answered(
        section: Section,
        number: usize,
        target: &str,
        answer: &FailoverAnswer,
        caller: Duration,
    ) -> Run {
        let body = &answer.body;
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let part = |name: &str| body.get(name).cloned().unwrap_or(Value::Null);
        Run {
            section,
            number,
            target: target.to_owned(),
            answered: jiff::Timestamp::now().to_string(),
            load: super::machine::load_average(),
            page_sync_ms: None,
            status: answer.status,
            success: answer.status == 200 && body.get("success") == Some(&Value::Bool(true)),
            error: text("error"),
            total_s: answer.seconds("/total_failover_time"),
            caller_s: caller.as_secs_f64(),
            columns: serde_json::from_value(part("steps")).unwrap_or_default(),
            steps: serde_json::from_value(part("timeline")).unwrap_or_default(),
            point_of_no_return_ms: answer.seconds("/point_of_no_return_ms"),
            remarks: serde_json::from_value(part("remarks")).unwrap_or_default(),
            kill_to_command_ms: None,
            protected_s: None,
            clients: Vec::new(),
            open_transaction: None,
            window: Window { from_us: 0, to_us: 0 },
        }
    }

    /// Milliseconds of a step that was done.
    pub fn step_ms(&self, name: &str) -> Option<f64> {
        let (begin, end) = self.span_ms(&[name])?;
        Some(end - begin)
    }

    /// From the first begin to the last end of those of these steps that were done.
    pub fn span_ms(&self, names: &[&str]) -> Option<(f64, f64)> {
        self.steps
            .iter()
            .filter(|step| names.contains(&step.step.as_str()))
            .filter_map(|step| Some((step.begin_ms, step.done_at()?)))
            .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_skipped_steps_do_not_count() {
        let body = serde_json::json!({
            "success": true, "total_failover_time": 0.25, "steps": {"health_check": 0.001},
            "timeline": [
                {"step": "stop", "datastore": "main", "begin_ms": 1.0, "end_ms": 3.5,
                 "outcome": "done: clean", "attempts": 1},
                {"step": "promote", "datastore": "main", "begin_ms": 3.5, "end_ms": 9.0,
                 "outcome": "done", "attempts": 1},
                {"step": "hold", "begin_ms": 0.0, "end_ms": 0.0, "outcome": "skipped: none",
                 "attempts": 1},
            ],
        });
        let answer = FailoverAnswer { status: 200, body };
        let run = Run::answered(Section::Switches, 1, "region2", &answer, Duration::ZERO);
        assert!(run.success);
        assert_eq!(run.columns.get("health_check"), Some(&0.001));
        assert_eq!(run.step_ms("stop"), Some(2.5));
        assert_eq!(run.step_ms("hold"), None);
        assert_eq!(run.span_ms(&["stop", "promote"]), Some((1.0, 9.0)));
    }
}
