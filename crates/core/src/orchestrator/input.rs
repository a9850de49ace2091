//! Everything that can happen to an orchestrator.

use std::time::Duration;

use crate::observe::{AgentReport, Knock};
use crate::order::Outcome;
use crate::record::{AutomaticMode, Record};
use crate::steps::StepKey;
use crate::words::{DatastoreName, Moment, NodeId, OperationId, Region, Stamp, WallMillis};

use super::seat::PeerReport;

/// What the driver hands over with every input: the time, and an operation id that has never been
/// used. The core takes at most one id per input.
#[derive(Debug, Clone, PartialEq)]
pub struct Now {
    /// The orchestrator's monotonic clock.
    pub moment: Moment,
    /// The wall clock, for the record and for people.
    pub wall: WallMillis,
    /// An id for an operation that may begin now.
    pub fresh: OperationId,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The store was read.
    Loaded(Record),
    /// A store that several orchestrators share was read, as often as agents are asked.
    Read {
        /// What it holds.
        record: Record,
        /// When the read was begun, by this orchestrator's monotonic clock.
        begun: Moment,
    },
    /// The store answered a compare-and-swap.
    Stored(StoreAnswer),
    /// Another orchestrator said what it sees.
    Peer(PeerReport),
    /// An agent reported.
    Report(AgentReport),
    /// An agent could not be asked.
    Missed {
        /// Which.
        region: Region,
        /// Why, in one sentence.
        why: String,
    },
    /// A command came to an end, or its answer was given up on.
    Outcome {
        /// Which operation sent it.
        operation: OperationId,
        /// Which step.
        key: StepKey,
        /// Under which stamp.
        stamp: Stamp,
        /// What came of it.
        outcome: Outcome,
    },
    /// Somebody asks for an operation.
    Asked(Request),
    /// A fresh connection from here to a data server came to an end.
    Knocked {
        /// Of which node.
        node: NodeId,
        /// What it came to.
        knock: Knock,
    },
    /// An agent answered a poll that it was to answer at once, also one that was given up on.
    RoundTrip {
        /// Of which region.
        region: Region,
        /// After how long.
        took: Duration,
    },
    /// Time passed.
    Tick,
}

/// What the store said to a compare-and-swap.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreAnswer {
    /// The next record is stored.
    Stored,
    /// Another record was there.
    Lost {
        /// That record.
        current: Box<Record>,
    },
    /// Nobody knows; a linearizable read settles it, and [`Input::Loaded`] follows (R4). Whoever
    /// reads sees to it first that what was sent arrives no more: a move that was stored after such
    /// a read said that it was not would be undone beside itself.
    Unknown {
        /// Why.
        why: String,
    },
}

/// An operation that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The id it gets if it begins; answers and journal name it.
    pub id: OperationId,
    /// What is asked for.
    pub what: Asked,
    /// Who asks.
    pub by: String,
    /// Why, in their words; empty where none is needed.
    pub reason: String,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Move the writer to a region.
    Move {
        /// Where to.
        target: Region,
        /// What the operator takes upon themselves.
        consent: Consent,
    },
    /// Make a node's data directory anew.
    Rebuild {
        /// Which node.
        node: NodeId,
    },
    /// Say whether the writer may be moved without being asked.
    Arm {
        /// What is to hold.
        mode: AutomaticMode,
        /// For how long; after that, what held before.
        lasting: Option<Duration>,
    },
    /// Record a single copy and let commits go on without the lost standby.
    Expose {
        /// Of which datastore.
        datastore: DatastoreName,
    },
}

/// What an operator takes upon themselves (L5, P6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Nothing: only a proven member may be promoted.
    None,
    /// Acknowledged writes may be lost.
    AcceptLoss,
    /// The same, and the old side is known to be down though its agent is silent.
    AcceptLossOldSideIsDown,
}
