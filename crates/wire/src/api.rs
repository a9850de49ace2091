//! The bodies of the orchestrator's HTTP API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer of `POST /failover/{region}` and of `GET /operations/{id}`: the specification's fields,
/// and what they leave out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationBody {
    /// Everything is as it was asked.
    pub success: bool,
    /// Where the writer was to go.
    pub target_region: String,
    /// Seconds from acceptance to the answer.
    pub total_failover_time: f64,
    /// It succeeded in less than five seconds, the specification's bound.
    pub tier0_compliant: bool,
    /// Seconds spent under each of the specification's names, and `prepare`. They overlap: steps
    /// run in parallel.
    pub steps: BTreeMap<String, f64>,
    /// When it ended, RFC 3339.
    pub timestamp: String,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A stable code for the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The operation's id.
    pub operation_id: String,
    /// `switchover`, `failover`, `failback`, `rejoin`, `rebuild`, `join`, `leave`,
    /// `expose`, `restart`, `arm`.
    pub kind: String,
    /// `running`, `succeeded`, `done-with-exceptions`, `refused`, `aborted`, `failed`, `unknown`.
    pub result: String,
    /// The writer before it.
    pub from_region: String,
    /// The node it was about, for repairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The record's epoch when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Milliseconds from acceptance to the point of no return, if it was passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_of_no_return_ms: Option<f64>,
    /// Who asked.
    pub requested_by: String,
    /// Why.
    pub reason: String,
    /// Whether reads from the old side can be ruled out from the moment of the answer: only where
    /// its PostgreSQL was confirmed stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_reads: Option<bool>,
    /// Datastores that stay closed, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<String, String>,
    /// Things worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Every step with its begin and end.
    pub timeline: Vec<StepBody>,
}

/// One step of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepBody {
    /// Its stable name.
    pub step: String,
    /// Of which datastore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// On which of its routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Milliseconds after acceptance at which it began.
    pub begin_ms: f64,
    /// Milliseconds after acceptance at which it ended; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<f64>,
    /// How it ended.
    pub outcome: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Answer of `GET /operations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// Newest first.
    pub operations: Vec<OperationBody>,
}

/// Answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusBody {
    /// The stack.
    pub stack: String,
    /// The writer.
    pub current_region: String,
    /// All regions.
    pub regions: Vec<String>,
    /// The specification's name of the PostgreSQL primary: the node's address.
    pub postgres_primary: Option<String>,
    /// The Redis master's address.
    pub redis_master: Option<String>,
    /// The worst protection of all datastores.
    pub protection: String,
    /// Why it is not better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection_reason: Option<String>,
    /// Seconds for which the stack has been exposed, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_seconds: Option<f64>,
    /// The record's epoch.
    pub epoch: u64,
    /// The record's revision.
    pub revision: u64,
    /// The record's lineage.
    pub lineage: String,
    /// Why nothing at all is being done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// Whether the writer may be moved without being asked, and why it is or is not.
    pub automatic: AutomaticStatus,
    /// How long answers take, and what that makes of the detection window.
    pub detection: DetectionStatus,
    /// The operation that moves the writer, if one is under way.
    pub operation: Option<OperationBody>,
    /// Repairs under way.
    pub repairs: Vec<OperationBody>,
    /// Each datastore.
    pub datastores: Vec<DatastoreStatus>,
    /// Each route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteStatus>,
    /// What is left of a year's budget of downtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<crate::AvailabilityBrief>,
    /// Each agent: region to why it is not answering, or null.
    pub agents: BTreeMap<String, Option<String>>,
    /// Where several orchestrators share a store: the site of the one that acts, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting: Option<String>,
    /// Each of several orchestrators: site to why it is not heard, or null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orchestrators: BTreeMap<String, Option<String>>,
    /// The build.
    pub version: String,
}

/// Whether the writer may be moved without being asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AutomaticStatus {
    /// `armed`, `observe` or `off`, as it holds now.
    pub mode: String,
    /// Who said so.
    pub by: String,
    /// When, RFC 3339.
    pub since: String,
    /// Why.
    pub reason: String,
    /// When it ends by itself, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The table's row that holds at the moment, and its sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// The newest move that was held back in this run of the orchestrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near_miss: Option<NearMissBody>,
}

/// How long answers take, and what that makes of the detection window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct DetectionStatus {
    /// `silence_ms`.
    pub silence_ms: u64,
    /// The window in force: that, or longer where all but one round trip of a thousand take longer.
    pub window_ms: f64,
    /// Round trips of polls, by region.
    pub round_trips: BTreeMap<String, QuantilesBody>,
    /// Commits of the agents' probes, by node.
    pub write_probes: BTreeMap<String, QuantilesBody>,
}

/// What a histogram comes to, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuantilesBody {
    /// On how many it rests; what is old fades.
    pub count: u64,
    /// Half took at most this long.
    pub p50_ms: f64,
    /// All but one of a hundred.
    pub p99_ms: f64,
    /// All but one of a thousand.
    pub p999_ms: f64,
}

/// A move of the writer that was held back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NearMissBody {
    /// When, RFC 3339.
    pub at: String,
    /// The table's row that held it back.
    pub row: String,
    /// What was wrong, and why nothing was done.
    pub sentence: String,
    /// Under which id it stands in the history.
    pub operation_id: String,
}

/// Body of `POST /automatic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutomaticBody {
    /// `armed`, `observe` or `off`.
    #[schema(value_type = String)]
    pub mode: tier0_core::record::AutomaticMode,
    /// For how many seconds; then what held before holds again. Absent: until it is changed.
    #[serde(default)]
    pub for_seconds: Option<u64>,
    /// Why; goes into the history.
    #[serde(default)]
    pub reason: String,
    /// Who asks, for the history.
    #[serde(default)]
    pub requested_by: Option<String>,
}

/// One datastore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreStatus {
    /// Its name.
    pub name: String,
    /// `postgres` or `redis`.
    pub kind: String,
    /// `protected`, `at-risk`, `exposed` or `best-effort`.
    pub protection: String,
    /// `max-availability` or `max-protection`; absent for Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection_mode: Option<String>,
    /// The members of its takeover set.
    pub takeover: Vec<String>,
    /// The decider row that explains it at the moment, and its sentence.
    pub explanation: Option<String>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// `datastore.region`.
    pub node: String,
    /// Its address.
    pub address: String,
    /// `primary`, `standby`, `master`, `replica`, or `unknown`.
    pub role: String,
    /// The process' state.
    pub state: String,
    /// Bytes behind the writer's node; absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_bytes: Option<u64>,
    /// Seconds behind the writer's node: the age of the oldest thing it has not replayed; absent
    /// where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<f64>,
    /// Its position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// How old this view is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// What it is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// What went wrong when looking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteStatus {
    /// `name.region`.
    pub route: String,
    /// The datastore whose clients it serves.
    pub datastore: String,
    /// The process' state, or `held`.
    pub state: String,
    /// The region where it points, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_at: Option<String>,
    /// Clients that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// What went wrong when looking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `GET /readiness`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckBody {
    /// A commanded switch would begin.
    pub ready: bool,
    /// Where to.
    pub target_region: String,
    /// What a switch would be like, where it would begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// Worst first.
    pub findings: Vec<FindingBody>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FindingBody {
    /// Code, level, datastore, sentence with its numbers, the number that decided, and how old the
    /// oldest report is that it rests on.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub finding: tier0_core::readiness::Finding,
    /// Since when it has been at this level, RFC 3339; absent where that is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The page about its code, which ends in commands.
    pub page: String,
}

/// What a switch would be like now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Prediction {
    /// All of it in one sentence.
    pub sentence: String,
    /// How long it would take; absent while no switch of this stack has been measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
    /// On how many of the last switches that rests.
    pub switches: u32,
    /// Open transactions that would be rolled back.
    pub cancels: u32,
    /// How long the oldest of them has been open, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_ms: Option<u64>,
    /// The `application_name` of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

/// Answer of `GET /plan/{region}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanBody {
    /// Where to.
    pub target_region: String,
    /// Whether it would begin.
    pub check: CheckBody,
    /// The steps in order.
    pub steps: Vec<PlanStep>,
}

/// Answer of `GET /rebuild/{node}/plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RebuildPlanBody {
    /// Whose data directory would be made anew.
    pub node: String,
    /// The node from which the data comes.
    pub source: String,
    /// Why it would be refused now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalBody>,
    /// Bytes free where the node keeps its data; the old directory stays beside the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free: Option<u64>,
    /// Why the data directory is left untouched until now, where loss was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The steps in order.
    pub steps: Vec<PlanStep>,
}

/// Why something would be refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RefusalBody {
    /// Stable code.
    pub code: String,
    /// What stands in the way, with its numbers.
    pub detail: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanStep {
    /// Its stable name.
    pub step: String,
    /// Of which datastore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// What it does.
    pub sentence: String,
    /// The steps that must lie behind it.
    pub after: Vec<String>,
}

/// Body of `POST /failover/{region}` and of the other POSTs; may be absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestBody {
    /// Why; required with `accept_loss`.
    pub reason: String,
    /// Promote even a node that is not proven to hold every acknowledged write.
    pub accept_loss: bool,
    /// The old side is known to be down although its agent is silent.
    pub old_side_is_down: bool,
    /// Wait for at most this many seconds, up to 100, until the target has caught up, instead of
    /// being refused because it is behind.
    pub wait_seconds: Option<u32>,
    /// Who asks, for the history.
    pub requested_by: Option<String>,
}

/// An error as RFC 9457 describes it, with the specification's `success: false` and `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A page about the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, with its numbers.
    pub detail: String,
    /// Stable code.
    pub code: String,
    /// Always false.
    pub success: bool,
    /// The same as `detail`, under the specification's name.
    pub error: String,
    /// The operation, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
}
