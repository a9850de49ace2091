//! What the journal says of an operation: one entry per thing that was meant, done or decided.

use serde::{Deserialize, Serialize};
use tier0_core::order::Outcome;
use tier0_core::record::OperationKind;
use tier0_core::steps::StepKey;
use tier0_core::words::{Epoch, NodeId, OperationId, Region, Revision, WallMillis};

use crate::{OperationResult, OperationSummary};

/// One entry, before the store has given it its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// Of which operation.
    pub operation: OperationId,
    /// When, for people.
    pub at: WallMillis,
    /// Microseconds since the operation was accepted, by the monotonic clock of the orchestrator
    /// that wrote it. After a take-over by another one it counts from the wall clocks.
    pub elapsed_micros: u64,
    /// Which step it is about, if it is about one.
    pub step: Option<StepKey>,
    /// Which node it is about, if it is about one.
    pub node: Option<NodeId>,
    /// What happened.
    pub event: JournalEvent,
}

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalEntry {
    /// Its place in the journal: it grows, and may leave gaps.
    pub sequence: u64,
    /// What was written.
    #[serde(rename = "entry")]
    pub new: NewEntry,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum JournalEvent {
    /// The operation was accepted.
    Accepted {
        /// Its kind.
        kind: OperationKind,
        /// The writer before it.
        from: Region,
        /// The writer after it.
        target: Region,
        /// Who asked.
        requested_by: String,
        /// Why, in their words.
        reason: String,
    },
    /// Something is about to be done, and with which values.
    Intent {
        /// What, in one sentence.
        sentence: String,
    },
    /// What came of it.
    Outcome {
        /// The agent's answer.
        outcome: Outcome,
    },
    /// The writer moved.
    PointOfNoReturn {
        /// The epoch that begins.
        epoch: Epoch,
        /// The revision of the record that says so.
        revision: Revision,
    },
    /// An abort was recorded; only undo follows.
    Aborting {
        /// Why.
        why: String,
    },
    /// Another run of an orchestrator drives the operation now (R4).
    TakenOver {
        /// Which one.
        owner: String,
    },
    /// A row of a decision table had something to say.
    Note {
        /// The stable id of the row.
        row: String,
        /// Its sentence, with the numbers filled in.
        sentence: String,
    },
    /// The operation ended.
    Finished {
        /// How.
        result: OperationResult,
        /// In one sentence.
        sentence: String,
    },
}

/// What goes into the journal in one write: all of it or nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JournalBatch {
    /// The operation as it stands now; replaces what was stored under the same id.
    pub summary: Option<OperationSummary>,
    /// Entries, in this order.
    pub entries: Vec<NewEntry>,
}

impl JournalBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.summary.is_none() && self.entries.is_empty()
    }

    /// The batch with the operation as it stands now.
    #[must_use]
    pub fn with_summary(mut self, summary: OperationSummary) -> Self {
        self.summary = Some(summary);
        self
    }

    /// The batch with one more entry.
    #[must_use]
    pub fn with_entry(mut self, entry: NewEntry) -> Self {
        self.entries.push(entry);
        self
    }
}

impl From<NewEntry> for JournalBatch {
    fn from(entry: NewEntry) -> Self {
        JournalBatch::default().with_entry(entry)
    }
}

impl From<OperationSummary> for JournalBatch {
    fn from(summary: OperationSummary) -> Self {
        JournalBatch::default().with_summary(summary)
    }
}
