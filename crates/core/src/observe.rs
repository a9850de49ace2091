//! What an agent reports of its nodes. A report says what was seen, never what to do about it;
//! what could not be seen is absent or an error text, never a default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::order::{Outcome, Step};
use crate::route::{RouteShape, RouteView};
use crate::words::{
    DatastoreName, Heard, Lsn, NodeId, RedisPosition, Region, ReplicationId, Stamp, SystemId,
    Timeline, WallMillis,
};

/// Everything one agent knows, as of one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// The region this agent looks after.
    pub region: Region,
    /// Which run of the agent this is; changes at every start.
    pub run: String,
    /// One higher for each report that differs from the one before; starts anew with each run.
    pub sequence: u64,
    /// The agent's own clock when it made the report, in microseconds; a lease is counted from it.
    #[serde(default)]
    pub stamp_us: u64,
    /// The newest record it has heard of; `None` before the first.
    pub heard: Option<Heard>,
    /// One entry for each node it looks after.
    pub nodes: BTreeMap<NodeId, NodeReport>,
    /// The servers of the other regions, as fresh connections from here find them.
    #[serde(default)]
    pub peers: BTreeMap<NodeId, Reach>,
    /// Why the agent will obey nothing at the moment (state directory not writable, damaged state).
    pub refusing: Option<String>,
    /// What it knows beside its servers. No decision looks at it; readiness does.
    #[serde(default)]
    pub host: HostView,
}

/// What an agent knows that no server tells: its clock, what else could start a server, and how old
/// backups are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostView {
    /// The host's clock when the report was made.
    pub wall: Option<WallMillis>,
    /// What beside this agent would start a node's server, one sentence each; looked for on this
    /// node where there is an entry.
    pub autostart: BTreeMap<NodeId, Vec<String>>,
    /// How old the newest backup is, where the configuration says how to find out.
    pub backups: BTreeMap<NodeId, BackupView>,
}

/// A node's newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// How old it is, in seconds; `None` where that could not be found out.
    pub age_seconds: Option<u64>,
    /// Why nothing is known.
    pub error: Option<String>,
}

/// What a fresh connection to a server came to. It says whether the server takes connections, not
/// what it is: no credentials are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knock {
    /// It was answered.
    Answered,
    /// It was refused or cut: the host is there, the server is not.
    Refused,
    /// Nothing came back in time.
    Silent,
}

/// A server as it is seen from one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// What the newest knock came to.
    pub newest: Knock,
    /// For how long none was answered, in milliseconds; 0 after one that was.
    pub unanswered_ms: u64,
}

/// One node as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// How old the view was when the report was made, in milliseconds.
    pub age_ms: u64,
    /// What the server is and does.
    pub view: NodeView,
    /// The newest command that was obeyed, with its outcome if it has one yet.
    pub last: Option<LastCommand>,
}

/// The newest command of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastCommand {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its step.
    pub step: Step,
    /// Its outcome; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// How far it is, in a sentence, while it runs.
    pub progress: Option<String>,
}

/// A node's server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NodeView {
    /// A PostgreSQL server.
    Postgres(PostgresView),
    /// A Redis server.
    Redis(RedisView),
    /// A route.
    Route(RouteView),
}

impl NodeView {
    /// Free bytes on the file system of the data directory, where that is known.
    pub fn disk_free(&self) -> Option<u64> {
        match self {
            NodeView::Postgres(view) => view.disk_free,
            NodeView::Redis(view) => view.disk_free,
            NodeView::Route(_) => None,
        }
    }
}

/// Whether the server process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    /// There is no data directory (or an empty one).
    NoData,
    /// There is a data directory that cannot be used: a clone or rewind broke off in it.
    Unusable,
    /// The server is not running.
    Stopped,
    /// The process is there but does not answer queries yet.
    Starting,
    /// It answers.
    Running,
    /// The process is there, and has not answered within the probe's deadline.
    Silent,
}

/// What a PostgreSQL server is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostgresRole {
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby,
}

/// One PostgreSQL node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostgresView {
    /// Whether the server process is there.
    pub process: ProcessState,
    /// Its role, while it runs.
    pub role: Option<PostgresRole>,
    /// The system identifier of the data directory.
    pub system: Option<SystemId>,
    /// The timeline it writes or replays.
    pub timeline: Option<Timeline>,
    /// A primary's flush position, or what a standby has received and flushed.
    pub flushed: Option<Lsn>,
    /// What a standby has replayed.
    pub replayed: Option<Lsn>,
    /// The effective `synchronous_standby_names`.
    pub sync_names: Option<String>,
    /// Standbys that stream from here.
    pub followers: Vec<PostgresFollower>,
    /// The `application_name` this standby streams under, while it streams.
    pub streaming_as: Option<String>,
    /// Whether clients are let in by `pg_hba.conf` (P8).
    pub clients_admitted: bool,
    /// Whether the last stop was clean, while it is stopped.
    pub shut_down_cleanly: Option<bool>,
    /// Sessions of clients.
    pub sessions: u32,
    /// How many of them have a transaction open.
    #[serde(default)]
    pub open_transactions: u32,
    /// The longest open transaction of a client, in milliseconds.
    pub longest_transaction_ms: Option<u64>,
    /// The `application_name` of that one.
    #[serde(default)]
    pub longest_application: Option<String>,
    /// WAL kept for slots that nobody reads, in bytes.
    pub retained_wal: u64,
    /// What the archiver did, where archiving is on.
    pub archive: Option<Box<ArchiveView>>,
    /// Slot name to `wal_status`.
    pub slots: BTreeMap<String, String>,
    /// Logical slots, which no standby has.
    #[serde(default)]
    pub logical_slots: Vec<String>,
    /// The role that can log in and whose password expires first, if any does.
    #[serde(default)]
    pub expiring: Option<Box<ExpiringRole>>,
    /// Free bytes on the file system of the data directory.
    pub disk_free: Option<u64>,
    /// Settings that the safety argument or a check reads, by name.
    pub settings: BTreeMap<String, String>,
    /// Server version as a number (150018 is 15.18).
    pub version: Option<u32>,
    /// Whether commits come back here, where it is a primary that lets clients in.
    #[serde(default)]
    pub commits: Option<CommitProbe>,
    /// What went wrong when looking, if anything did.
    pub error: Option<String>,
}

/// Small real commits that wait for no standby. Two ways, since a frozen postmaster leaves open
/// sessions working, and a frozen backend new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitProbe {
    /// For how long none came back over the session that is kept, in milliseconds.
    pub kept_failing_ms: u64,
    /// For how long none came back over a fresh session, in milliseconds.
    pub fresh_failing_ms: u64,
    /// How long the newest that came back took over the session that is kept, in milliseconds.
    #[serde(default)]
    pub kept_took_ms: Option<u64>,
    /// How long the newest that came back took over a fresh session, with making it.
    #[serde(default)]
    pub fresh_took_ms: Option<u64>,
    /// What the newest failure was.
    pub why: Option<String>,
}

/// What a PostgreSQL archiver did (`pg_stat_archiver`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveView {
    /// Files archived since the statistics were reset.
    pub archived: u64,
    /// The same in bytes, each file counted as a whole segment.
    pub archived_bytes: u64,
    /// Failures since the statistics were reset.
    pub failed: u64,
    /// How long ago the last one was, in seconds.
    pub last_failed_seconds: Option<u64>,
    /// How long ago the last success was, in seconds.
    pub last_archived_seconds: Option<u64>,
    /// Segments that are finished and not archived yet.
    #[serde(default)]
    pub waiting: u64,
    /// For how long the oldest of them has waited, in seconds.
    #[serde(default)]
    pub oldest_waiting_seconds: Option<u64>,
}

/// A role whose password expires (`rolvaliduntil`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiringRole {
    /// Its name.
    pub role: String,
    /// Seconds until then; negative once it has expired.
    pub seconds: i64,
}

/// A standby as its primary sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostgresFollower {
    /// Its `application_name`.
    pub name: String,
    /// `state` of `pg_stat_replication`.
    pub state: String,
    /// `sync_state` of `pg_stat_replication`. A hint: it can be ahead of what backends do (H6).
    pub sync_state: String,
    /// Flushed by the standby.
    pub flushed: Option<Lsn>,
    /// Replayed by the standby.
    pub replayed: Option<Lsn>,
}

/// What a Redis server is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisRole {
    /// A master.
    Master,
    /// A replica.
    Replica,
}

/// One Redis node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RedisView {
    /// Whether the server process is there.
    pub process: ProcessState,
    /// Its role, while it runs.
    pub role: Option<RedisRole>,
    /// `master_replid`.
    pub replication: Option<ReplicationId>,
    /// `master_repl_offset` of a master, `slave_repl_offset` of a replica.
    pub offset: Option<u64>,
    /// `master_replid2` and `second_repl_offset`, where there are any: the history before the
    /// last promotion.
    pub second: Option<RedisPosition>,
    /// `host:port` of its master, for a replica.
    pub master: Option<String>,
    /// `master_link_status` is `up`.
    pub link_up: bool,
    /// A full synchronisation from the master runs, or data is being loaded: nothing here counts.
    pub loading: bool,
    /// Keys in all databases.
    pub keys: u64,
    /// `min-replicas-to-write`.
    pub min_replicas_to_write: Option<u64>,
    /// `evicted_keys` since the start.
    pub evicted_keys: u64,
    /// Replicas connected and online.
    pub replicas: u32,
    /// `used_memory` in bytes.
    pub used_memory: u64,
    /// `maxmemory` in bytes; 0 is unlimited.
    pub maxmemory: u64,
    /// Each Sentinel as asked by this agent: address to what it says.
    pub sentinels: BTreeMap<String, SentinelView>,
    /// Free bytes on the file system of the data directory.
    pub disk_free: Option<u64>,
    /// `redis_version`.
    pub version: Option<String>,
    /// How it keeps its data on disk, while it answers.
    #[serde(default)]
    pub persistence: Option<RedisPersistence>,
    /// What went wrong when looking, if anything did.
    pub error: Option<String>,
}

/// How a Redis keeps its data on disk (`INFO persistence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisPersistence {
    /// The append-only file is on.
    pub append_only: bool,
    /// The last write to it succeeded.
    pub append_ok: bool,
    /// The last snapshot succeeded.
    pub snapshot_ok: bool,
}

impl RedisView {
    /// The position, where both halves of it are known.
    pub fn position(&self) -> Option<RedisPosition> {
        Some(RedisPosition { replication: self.replication.clone()?, offset: self.offset? })
    }
}

/// What one Sentinel says of the datastore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentinelView {
    /// The master it names, `host:port`.
    pub master: Option<String>,
    /// Its configuration epoch for this master.
    pub config_epoch: Option<u64>,
    /// The flags it gives the master.
    pub flags: Option<String>,
    /// How many other Sentinels it knows.
    pub peers: Option<u64>,
    /// How many replicas it knows.
    pub replicas: Option<u64>,
    /// Why nothing is known of it.
    pub error: Option<String>,
}

/// The shape of the stack, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Regions, the home of the writer first.
    pub regions: Vec<Region>,
    /// Datastores.
    pub datastores: BTreeMap<DatastoreName, DatastoreShape>,
    /// Routes.
    #[serde(default)]
    pub routes: BTreeMap<NodeId, RouteShape>,
}

impl Shape {
    /// The region that is not `region`; `None` unless there are exactly two.
    pub fn other(&self, region: &Region) -> Option<&Region> {
        match self.regions.as_slice() {
            [a, b] if a == region => Some(b),
            [a, b] if b == region => Some(a),
            _ => None,
        }
    }
}

/// One datastore, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreShape {
    /// Its kind.
    pub kind: crate::record::DatastoreKind,
    /// What its failure means for the others (O1).
    pub policy: MovePolicy,
    /// `host:port` of each region's node, as the nodes see each other.
    pub addresses: BTreeMap<Region, String>,
    /// How Sentinel learns of a switch (Redis).
    pub announce: Announce,
    /// What follows when the writer's server ends by itself.
    pub on_process_death: OnProcessDeath,
    /// What commits do while no standby holds them (PostgreSQL).
    pub protection: ProtectionMode,
}

/// What commits of a PostgreSQL datastore do while no standby is proven to hold them (P9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionMode {
    /// They wait for a moment, then go on with a single copy, which is recorded.
    #[default]
    MaxAvailability,
    /// They wait until a standby has joined, or until an operator says that they go on.
    MaxProtection,
}

impl ProtectionMode {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            ProtectionMode::MaxAvailability => "max-availability",
            ProtectionMode::MaxProtection => "max-protection",
        }
    }
}

/// What follows when the writer's server ends by itself and its region lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnProcessDeath {
    /// The writer moves to the other region, if it may be moved without being asked.
    Failover,
    /// The server is started again where it is.
    Restart,
}

/// How Sentinel learns of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Announce {
    /// By a majority vote and a hello.
    Vote,
    /// By `SENTINEL FAILOVER`, after pause, offsets and fence.
    Documented,
}

/// What a datastore's failure to move means for the operation (O1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MovePolicy {
    /// The stack does not move without it.
    Required,
    /// The others move without it; it is brought along as well as it can be.
    Follow,
}
