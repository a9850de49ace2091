//! What is kept of an operation as a whole, for lists, answers and reports.

use std::fmt;

use serde::{Deserialize, Serialize};
use tier0_core::record::OperationKind;
use tier0_core::words::{Epoch, OperationId, Region, WallMillis};

/// One operation at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationSummary {
    /// Which operation.
    pub id: OperationId,
    /// Its kind.
    pub kind: OperationKind,
    /// The writer before it.
    pub from: Region,
    /// The writer after it; the same as `from` where the kind does not move the writer.
    pub target: Region,
    /// Who asked for it.
    pub requested_by: String,
    /// Why, in their words.
    pub reason: String,
    /// When it was accepted.
    pub accepted: WallMillis,
    /// When it ended.
    pub finished: Option<WallMillis>,
    /// How it ended.
    pub result: OperationResult,
    /// The epoch in which it began.
    pub epoch_before: Epoch,
    /// The epoch in which it ended, once it has.
    pub epoch_after: Option<Epoch>,
    /// Microseconds from acceptance to end, by a monotonic clock.
    pub total_micros: Option<u64>,
    /// Everything else that is shown of it; the store does not look inside.
    pub report: serde_json::Value,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationResult {
    /// It has not.
    Running,
    /// Everything it was meant to do is done.
    Succeeded,
    /// The writer moved, and at least one datastore did not follow (O2).
    SucceededWithExceptions,
    /// It was not begun, because something forbade it.
    Refused,
    /// It was begun and undone; the old side is in service.
    Aborted,
    /// It could not be done.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl OperationResult {
    /// The stable word for it.
    pub fn word(self) -> &'static str {
        match self {
            OperationResult::Running => "running",
            OperationResult::Succeeded => "succeeded",
            OperationResult::SucceededWithExceptions => "succeeded-with-exceptions",
            OperationResult::Refused => "refused",
            OperationResult::Aborted => "aborted",
            OperationResult::Failed => "failed",
            OperationResult::Unknown => "unknown",
        }
    }
}

impl fmt::Display for OperationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
