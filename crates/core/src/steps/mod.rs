//! The steps of every operation, as a table: what each is for, when it may begin, what its trouble
//! means. The order of a switchover is read off this file from top to bottom.
//!
//! A step is one effect on one datastore's node (or on the record). Steps whose `after` lists are
//! settled begin at once, so what nothing orders runs in parallel (O1).

mod table;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::DatastoreKind;

pub use table::{Side, StepRow, TABLE, Trouble, row};

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        /// One step. The name is stable: it is in the journal, the metrics and the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            /// Every step.
            pub const ALL: &'static [Step] = &[$(Step::$name,)*];

            /// The stable name.
            pub fn id(self) -> &'static str {
                match self { $(Step::$name => $id,)* }
            }
        }
    };
}

steps! {
    /// Look at fresh reports of both sides and refuse what cannot work.
    HealthCheck = "health-check",
    /// Store the intent: the operation now owns the stack.
    Claim = "claim",
    /// PostgreSQL: checkpoint on the old primary, so that its stop is short.
    Checkpoint = "checkpoint",
    /// Redis: win a Sentinel epoch by majority vote.
    Vote = "vote",
    /// Everything is prepared: from here on clients wait.
    Hold = "hold",
    /// A route holds new transactions.
    HoldRoute = "hold-route",
    /// PostgreSQL: how far the old primary has written.
    Drain = "drain",
    /// PostgreSQL: the target has flushed as much.
    Receive = "receive",
    /// Redis: writes are held on the old master.
    Pause = "pause",
    /// Redis: where the old agent does not answer, the master itself is asked.
    AskMaster = "ask-master",
    /// Redis: the target has the same offset.
    CatchUp = "catch-up",
    /// Redis: the old master refuses writes without a deadline.
    Fence = "fence",
    /// Redis: the target has what the old master took in before the fence, if it took in anything.
    CatchUpFenced = "catch-up-fenced",
    /// The compare-and-swap that moves the writer: the point of no return.
    Swap = "swap",
    /// PostgreSQL: the old primary stops.
    Stop = "stop",
    /// PostgreSQL: the target becomes primary.
    Promote = "promote",
    /// Redis: the target becomes master.
    PromoteRedis = "promote-redis",
    /// Redis: the old master follows the new one.
    Demote = "demote",
    /// Redis: every Sentinel is told.
    Announce = "announce",
    /// Redis, mode `documented`: Sentinel is told to fail over, after pause, offsets and fence.
    SentinelFailover = "sentinel-failover",
    /// Agents learn the new writer.
    Route = "route",
    /// A route points at the new writer.
    SwitchRoute = "switch-route",
    /// A route lets clients go on, to the new writer.
    ReleaseRoute = "release-route",
    /// PostgreSQL: a real write and read on the new primary.
    Validate = "validate",
    /// Redis: a real write and read on the new master.
    ValidateRedis = "validate-redis",
    /// The operation leaves the record.
    Finish = "finish",

    /// Undo of pause and fence on the old master.
    Unfence = "unfence",
    /// Undo of the hold: a route lets clients go on, to the old writer.
    ResumeRoute = "resume-route",
    /// The abort is stored before anything is undone.
    RecordAbort = "record-abort",

    /// A primary is started where it is, clients kept out.
    Start = "start",
    /// Redis: a master is started where it is.
    StartRedis = "start-redis",
    /// Clients are let in.
    Admit = "admit",
    /// PostgreSQL: a node becomes a standby.
    Follow = "follow",
    /// Redis: a node becomes a replica.
    FollowRedis = "follow-redis",
    /// The primary begins to wait for the new name.
    JoinBegin = "join-begin",
    /// The standby takes the new name.
    Rename = "rename",
    /// The commit that waited came back, and the standby has it.
    JoinProve = "join-prove",
    /// The member is stored in the takeover set.
    RecordJoin = "record-join",
    /// The record gives out the number of a new membership.
    Number = "number",
    /// The record notes that the datastore has been started once.
    RecordBorn = "record-born",
    /// The record notes whether the writer may be moved without being asked.
    RecordArm = "record-arm",
    /// The member is taken out of the takeover set.
    RecordLeave = "record-leave",
    /// The primary waits for nobody any more.
    Leave = "leave",
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// Which of the specification's five named steps a step is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecificationStep {
    /// `health_check`
    HealthCheck,
    /// `prepare`: not in the specification; shown rather than hidden.
    Prepare,
    /// `database_promotion`
    DatabasePromotion,
    /// `redis_failover`
    RedisFailover,
    /// `routing_update`
    RoutingUpdate,
    /// `validation`
    Validation,
}

impl SpecificationStep {
    /// Its name in the API's `steps` object.
    pub fn id(self) -> &'static str {
        match self {
            SpecificationStep::HealthCheck => "health_check",
            SpecificationStep::Prepare => "prepare",
            SpecificationStep::DatabasePromotion => "database_promotion",
            SpecificationStep::RedisFailover => "redis_failover",
            SpecificationStep::RoutingUpdate => "routing_update",
            SpecificationStep::Validation => "validation",
        }
    }
}

/// A step of one datastore, or of the stack as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepKey {
    /// Which step.
    pub step: Step,
    /// Of which datastore; `None` for the stack.
    pub datastore: Option<crate::words::DatastoreName>,
    /// On which route of that datastore; `None` for its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<crate::words::NodeId>>,
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.route, &self.datastore) {
            (Some(route), _) => write!(f, "{}[{route}]", self.step),
            (None, Some(datastore)) => write!(f, "{}[{datastore}]", self.step),
            (None, None) => write!(f, "{}", self.step),
        }
    }
}

/// What a step is one of for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One for the whole stack.
    Stack,
    /// One for each datastore of this kind.
    Each(DatastoreKind),
    /// One for each route; it waits for the steps of the route's own datastore.
    EachRoute,
}
