//! Everything that an orchestrator's core can want done or said. Effects are performed in the
//! order in which they stand; what must be durable first stands first.

use crate::order::{Command, Refusal};
use crate::record::{OperationKind, Record};
use crate::steps::StepKey;
use crate::words::{Epoch, Heard, NodeId, OperationId, WallMillis};

use super::activity::{Activity, Ended};
use super::automatic::NearMiss;
use super::input::Request;

/// One effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Compare-and-swap the record, with journal entries in the same transaction. At most one is
    /// under way at a time.
    Store {
        /// The record that must be there.
        expected: Heard,
        /// The record to put in its place.
        next: Box<Record>,
    },
    /// Read the record from the store.
    Load,
    /// Send a command to the agent of its node's region, and bring back the outcome.
    Send {
        /// Which operation it belongs to.
        operation: OperationId,
        /// Which step.
        key: StepKey,
        /// The command.
        command: Box<Command>,
    },
    /// Write a line to the journal.
    Note(Note),
    /// An operation was accepted: its summary begins.
    Began(Box<Activity>),
    /// An operation can be answered: it ended, or only retries of exceptions remain.
    Ended {
        /// The operation with all its steps.
        activity: Box<Activity>,
        /// How it ended.
        ended: Ended,
    },
    /// A request was refused before it became an operation.
    Refused {
        /// What was asked, and by whom; its id is the one that it would have had.
        request: Request,
        /// Why.
        refusal: Refusal,
    },
    /// The writer was found dead, or nearly, and was not moved: a row held it back.
    HeldBack(NearMiss),
    /// A table row explains why something is, or is not, being done. Emitted when it changes.
    Explain {
        /// The row's stable id.
        row: &'static str,
        /// What it speaks of.
        subject: String,
        /// Its sentence.
        sentence: &'static str,
    },
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Which operation.
    pub operation: OperationId,
    /// Microseconds since it was accepted.
    pub elapsed_micros: u64,
    /// Wall clock.
    pub wall: WallMillis,
    /// Which step.
    pub key: Option<StepKey>,
    /// Which node.
    pub node: Option<NodeId>,
    /// What.
    pub what: Noted,
}

/// What a line of the journal says.
#[derive(Debug, Clone, PartialEq)]
pub enum Noted {
    /// The operation was accepted.
    Accepted {
        /// Its kind.
        kind: OperationKind,
        /// Who asked.
        by: String,
    },
    /// A step begins: the intent.
    Begins {
        /// The order, in words.
        sentence: String,
    },
    /// A step ended: the outcome.
    Ends {
        /// The verdict, in words.
        sentence: String,
    },
    /// The point of no return was passed.
    PointOfNoReturn {
        /// The new epoch.
        epoch: Epoch,
    },
    /// Something worth knowing.
    Remark {
        /// It.
        sentence: String,
    },
    /// The operation ended.
    Ended {
        /// How.
        sentence: String,
    },
}
