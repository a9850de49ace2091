//! The authority record: the one compare-and-swapped value that says who may accept writes, who
//! may be promoted, and which operation is under way. Every change makes the revision one higher.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::order::Refusal;
use crate::words::{
    DatastoreName, Epoch, Heard, Lineage, Lsn, NodeId, OperationId, Region, Revision, StackName,
    SyncName, SystemId, Timeline, WallMillis,
};

/// The version of the record's form that this build writes and reads.
pub const RECORD_FORMAT: u32 = 1;

/// The authority record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_FORMAT`]; any other is refused.
    pub format: u32,
    /// Which stack this is the record of.
    pub stack: StackName,
    /// The store's unbroken history.
    pub lineage: Lineage,
    /// One more at every change of writer.
    pub epoch: Epoch,
    /// One more at every change of the record.
    pub revision: Revision,
    /// The region whose nodes may accept writes.
    pub writer: Region,
    /// Takeover set and protection of each datastore.
    pub datastores: BTreeMap<DatastoreName, DatastoreRecord>,
    /// Which run of which orchestrator acts on this record. Starting to act is a CAS that changes
    /// it (R4), so the commands of two runs never carry the same stamp.
    pub driver: String,
    /// Nodes whose data directory is left untouched until an operator releases it by a rebuild,
    /// and why: loss was accepted, and what it was may still be there (P6).
    #[serde(default)]
    pub held: BTreeMap<NodeId, String>,
    /// Whether the writer may be moved without being asked, and who said so.
    #[serde(default)]
    pub automatic: Automatic,
    /// The operation that owns the stack at the moment.
    pub claim: Option<Claim>,
    /// How the operation ended that owned the stack last. It is stored in the swap that ends the
    /// claim, so that an orchestrator that ends right after it leaves no open question behind.
    #[serde(default)]
    pub finished: Option<Finished>,
}

impl Record {
    /// What an agent that knows this record has heard.
    pub fn heard(&self) -> Heard {
        Heard { lineage: self.lineage.clone(), epoch: self.epoch, revision: self.revision }
    }

    /// The worst protection of all datastores.
    pub fn protection(&self) -> &Protection {
        self.datastores
            .values()
            .map(|datastore| &datastore.protection)
            .max_by_key(|protection| protection.severity())
            .unwrap_or(&Protection::BestEffort)
    }
}

/// Whether the writer may be moved without being asked (O3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Automatic {
    /// What was set.
    pub mode: AutomaticMode,
    /// By whom.
    pub by: String,
    /// When.
    pub at: WallMillis,
    /// Why, in their words.
    pub reason: String,
    /// When it ends by itself, and what holds from then on.
    pub until: Option<Until>,
}

impl Default for Automatic {
    /// A record that says nothing of it is watched and not acted on.
    fn default() -> Self {
        Automatic {
            mode: AutomaticMode::Observe,
            by: "default".to_owned(),
            at: WallMillis::default(),
            reason: String::new(),
            until: None,
        }
    }
}

impl Automatic {
    /// What holds at this time. The one place at which wall clocks are compared: it ends what a
    /// person set for a while, and a clock that is wrong ends it too early or too late.
    pub fn mode_at(&self, wall: WallMillis) -> AutomaticMode {
        match &self.until {
            Some(until) if wall.0 >= until.at.0 => until.then,
            Some(_) | None => self.mode,
        }
    }
}

/// The end of a mode that was set for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// When.
    pub at: WallMillis,
    /// What holds from then on.
    pub then: AutomaticMode,
}

/// What is done when the writer is found dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutomaticMode {
    /// The writer is moved.
    Armed,
    /// It is said what would have been done.
    Observe,
    /// It is said that nothing is done.
    Off,
}

impl AutomaticMode {
    /// Every mode.
    pub const ALL: [AutomaticMode; 3] =
        [AutomaticMode::Armed, AutomaticMode::Observe, AutomaticMode::Off];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            AutomaticMode::Armed => "armed",
            AutomaticMode::Observe => "observe",
            AutomaticMode::Off => "off",
        }
    }
}

impl fmt::Display for AutomaticMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Which kind of server a datastore consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatastoreKind {
    /// PostgreSQL: synchronous physical replication, zero loss.
    Postgres,
    /// Redis: asynchronous replication; lossless when planned, best effort when not.
    Redis,
}

impl fmt::Display for DatastoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatastoreKind::Postgres => "PostgreSQL",
            DatastoreKind::Redis => "Redis",
        })
    }
}

/// What the record says of one datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatastoreRecord {
    /// Its kind.
    pub kind: DatastoreKind,
    /// Nodes that are proven to hold every acknowledged write.
    pub takeover: BTreeMap<NodeId, Member>,
    /// Whether a loss of the writer's copy would lose anything.
    pub protection: Protection,
    /// The number of the newest membership; the next join takes the one after it.
    pub memberships: u64,
}

impl DatastoreRecord {
    /// Whether commits wait though nobody is in the takeover set: `max-protection`, until a standby
    /// has joined or an operator says that they go on (P9).
    pub fn is_waiting(&self) -> bool {
        self.kind == DatastoreKind::Postgres
            && self.takeover.is_empty()
            && matches!(self.protection, Protection::AtRisk { .. })
    }
}

/// One member of a takeover set (P3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The name for which the primary waits.
    pub name: SyncName,
    /// The cluster it holds a copy of.
    pub system: SystemId,
    /// The timeline on which it joined.
    pub timeline: Timeline,
    /// It holds everything up to here; refreshed about every second. A copy that ends below is
    /// not this member, whatever it says.
    pub floor: Lsn,
}

/// How safe the acknowledged writes of a datastore are from losing the writer's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Protection {
    /// A second copy holds every acknowledged write, and commits wait for it.
    Protected,
    /// It cannot be proven at the moment.
    AtRisk {
        /// Why.
        reason: String,
    },
    /// There is one copy, and that is recorded.
    Exposed {
        /// Since when.
        since: WallMillis,
        /// Why.
        reason: String,
    },
    /// The kind of datastore promises nothing for an unplanned loss (Redis).
    BestEffort,
}

impl Protection {
    /// The higher, the worse.
    pub fn severity(&self) -> u8 {
        match self {
            Protection::BestEffort => 0,
            Protection::Protected => 1,
            Protection::AtRisk { .. } => 2,
            Protection::Exposed { .. } => 3,
        }
    }

    /// The one word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Protection::Protected => "protected",
            Protection::AtRisk { .. } => "at-risk",
            Protection::Exposed { .. } => "exposed",
            Protection::BestEffort => "best-effort",
        }
    }
}

/// What kind of operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// The writer changes its region, and both sides cooperate.
    Switchover,
    /// The writer changes its region, and the old side may not answer.
    Failover,
    /// A switchover home.
    Failback,
    /// A node becomes a standby of the writer's node again.
    Rejoin,
    /// A node's data directory is made anew from the writer's.
    Rebuild,
    /// A standby enters the takeover set.
    Join,
    /// A standby leaves the takeover set; commits go on with a single copy, or wait for the next one
    /// where the datastore says `max-protection`.
    Leave,
    /// A person records a single copy and lets commits go on without a standby.
    Expose,
    /// The writer's own node is started again where it is.
    Restart,
    /// A person says whether the writer may be moved without being asked.
    Arm,
}

impl OperationKind {
    /// Whether this kind changes the writer.
    pub fn moves_writer(self) -> bool {
        match self {
            OperationKind::Switchover | OperationKind::Failover | OperationKind::Failback => true,
            OperationKind::Rejoin
            | OperationKind::Rebuild
            | OperationKind::Join
            | OperationKind::Leave
            | OperationKind::Expose
            | OperationKind::Restart
            | OperationKind::Arm => false,
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OperationKind::Switchover => "switchover",
            OperationKind::Failover => "failover",
            OperationKind::Failback => "failback",
            OperationKind::Rejoin => "rejoin",
            OperationKind::Rebuild => "rebuild",
            OperationKind::Join => "join",
            OperationKind::Leave => "leave",
            OperationKind::Expose => "expose",
            OperationKind::Restart => "restart",
            OperationKind::Arm => "arm",
        })
    }
}

/// The operation that owns the stack. Its presence in the record is the intent of R5: it is
/// stored before the first effect, with every value that an undo needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Which operation.
    pub operation: OperationId,
    /// Its kind.
    pub kind: OperationKind,
    /// The writer before it.
    pub from: Region,
    /// The writer after it; the same as `from` where the kind does not move the writer.
    pub target: Region,
    /// The node it is about, where it is about one.
    pub node: Option<NodeId>,
    /// How far it came, as far as the record must know.
    pub phase: ClaimPhase,
    /// When it was accepted.
    pub accepted: WallMillis,
    /// Who asked for it.
    pub requested_by: String,
    /// Why, in their words.
    pub reason: String,
    /// Settings of the old side as they were before quiescing, for the way back.
    pub undo: BTreeMap<DatastoreName, Undo>,
    /// The takeover members of the target region as they were at the point of no return, where the
    /// record's own sets become empty: what may still be promoted, whoever goes on with it.
    pub members: BTreeMap<DatastoreName, Member>,
    /// Datastores whose target is not in the takeover set and may be promoted all the same,
    /// because an operator said so (L5, P6).
    pub accept_loss: bool,
    /// The operator said as well that the old side is down. Without it whoever goes on with the
    /// operation promotes nobody beside an old primary that is not confirmed stopped (L5).
    #[serde(default)]
    pub old_side_is_down: bool,
    /// The operation whose place it takes: one that has moved the writer and cannot finish. It owns
    /// the stack again if this one is undone, and is over once this one has moved the writer.
    #[serde(default)]
    pub superseded: Option<Box<Claim>>,
}

/// An operation that left the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// Which operation.
    pub operation: OperationId,
    /// How it ended.
    pub end: End,
}

/// How an operation that owned the stack ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum End {
    /// Everything it was meant to do is done.
    Succeeded,
    /// It was undone.
    Undone {
        /// Why.
        refusal: Refusal,
    },
}

/// How far an operation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimPhase {
    /// Before the point of no return: an abort means "back to the old side".
    Before,
    /// An abort was recorded; only undo steps follow.
    Aborting,
    /// After the point of no return: only forward.
    After,
}

/// What an abort puts back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// Redis: `min-replicas-to-write` of the old master before it was fenced.
    pub min_replicas_to_write: u64,
}
