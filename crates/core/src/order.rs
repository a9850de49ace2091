//! What an agent can be told to do to a node, and what it can answer. Both lists are closed.
//!
//! Every order is safe to repeat: it looks at what is there first, and an order whose goal is
//! already met answers as if it had just been done.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::route::RouteOrder;
use crate::words::{Lsn, NodeId, RedisPosition, Stamp, SyncName, SystemId, Timeline, WalPosition};

pub use crate::steps::Step;

/// A command to one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Which node.
    pub node: NodeId,
    /// Its place in the order of all commands to this node (R1).
    pub stamp: Stamp,
    /// Which step of the operation this is; for people and logs.
    pub step: Step,
    /// What to do.
    pub order: Order,
    /// How long the agent may take, in milliseconds.
    pub limit_ms: u64,
}

/// What to do. The comment of each says what "already done" looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// PostgreSQL: write a checkpoint, so that the stop is short. Always done again.
    PostgresCheckpoint,
    /// PostgreSQL: report the flush position of the primary. Always done again.
    PostgresDrain,
    /// PostgreSQL: wait until the standby has flushed this position.
    PostgresAwait {
        /// The position.
        position: WalPosition,
    },
    /// PostgreSQL: stop the server. Fast within `limit_ms`, then immediate. Done when it is down.
    PostgresStop,
    /// PostgreSQL: start as primary with these sync names and clients kept out, or, where it runs
    /// already as primary, set the names and leave it running.
    PostgresStart {
        /// `None` only where the record says exposed.
        names: Option<SyncName>,
    },
    /// PostgreSQL: let clients in. With a member: only after a canary was seen waiting and the
    /// member has flushed past the end of recovery (P8).
    PostgresAdmit {
        /// The takeover member that must be seen to be enforced; `None` where the record says
        /// exposed.
        member: Option<SyncName>,
    },
    /// PostgreSQL: become primary. Done when it is one on a timeline above the member's.
    PostgresPromote {
        /// Which membership is promoted; the node compares it with its own marker (P3).
        member: Option<PromoteMember>,
        /// Where the old primary's last record ends, where it ended in order: the stream must have
        /// reached it.
        stopped_at: Option<WalPosition>,
        /// The operator accepted loss: no member is required.
        accept_loss: bool,
        /// For whom commits wait from the promotion on; `None` only where the record says exposed.
        #[serde(default)]
        names: Option<SyncName>,
    },
    /// PostgreSQL: write and read one row in tier0's own schema. Always done again.
    PostgresValidate {
        /// What to write.
        token: String,
    },
    /// PostgreSQL: be a standby of `upstream`, streaming under the join name; by the ladder
    /// streaming, rewind, base backup. Done when it streams from there.
    PostgresFollow {
        /// Whose standby.
        upstream: NodeId,
        /// Make the data directory anew even where it could be used.
        rebuild: bool,
        /// Keep the old data directory untouched beside the new one (P6).
        keep_old: bool,
    },
    /// PostgreSQL: the primary begins to wait for this name; done when a canary is seen waiting.
    /// Undone by the agent itself after `join_limit_ms` unless [`Order::PostgresJoinProve`]
    /// succeeded (P1).
    PostgresJoinBegin {
        /// The new membership.
        name: SyncName,
        /// How long clients may be kept waiting.
        join_limit_ms: u64,
    },
    /// PostgreSQL: the standby takes this name, and keeps the marker of it beside its data.
    PostgresRename {
        /// The new membership.
        name: SyncName,
    },
    /// PostgreSQL: the primary waits until the canary returned and the member flushed it.
    PostgresJoinProve {
        /// The new membership.
        name: SyncName,
    },
    /// PostgreSQL: the primary waits for nobody any more. Only after the record says so (P1).
    PostgresLeave,

    /// Redis: win a Sentinel epoch by a majority of votes.
    RedisVote,
    /// Redis: hold writes and report the position.
    RedisPause {
        /// The pause ends by itself after this many milliseconds.
        pause_ms: u64,
    },
    /// Redis: ask the master itself, whose agent does not answer. Refused with `redis-master-lives`
    /// if it answers: its writes must not be left behind. Done if it does not. Always done again.
    RedisAskMaster {
        /// The master.
        master: NodeId,
    },
    /// Redis: wait until the replica has this position.
    RedisAwait {
        /// The position.
        position: RedisPosition,
    },
    /// Redis: refuse writes without a deadline (`min-replicas-to-write 99`), and report the offset.
    /// The pause goes on: what it holds back (Sentinels' hellos among it) must not enter the stream
    /// before the roles have changed. Following, unfencing or promoting ends it.
    RedisFence,
    /// Redis: the way back from pause and fence.
    RedisUnfence {
        /// The value to restore.
        min_replicas_to_write: u64,
    },
    /// Redis: become master and accept writes. Done when it is one.
    RedisPromote {
        /// The operator or the policy accepts what the replica does not have.
        accept_loss: bool,
    },
    /// Redis: be a replica of `upstream`; starts the server where it is down. Keeps an RDB of data
    /// that the new master does not have before it is discarded (D4).
    RedisFollow {
        /// Whose replica.
        upstream: NodeId,
        /// `min-replicas-to-write` once it follows.
        min_replicas_to_write: u64,
        /// Throw the data away even where a partial resynchronisation would do.
        rebuild: bool,
    },
    /// Redis: start as master with the data that is on disk. Never over lost data (D3).
    RedisStart {
        /// The very first start of this datastore: an empty data directory is right.
        first: bool,
    },
    /// Redis: tell each Sentinel that this node is the master, with the epoch that was won, or the
    /// highest known plus one where no majority could be asked (D2).
    RedisAnnounce {
        /// The epoch won by [`Order::RedisVote`].
        epoch: Option<u64>,
    },
    /// Redis: the specification's way, `SENTINEL FAILOVER`, after pause, offsets and fence.
    RedisSentinelFailover,
    /// Redis: write and read one key under tier0's own prefix. Always done again.
    RedisValidate {
        /// What to write.
        token: String,
    },

    /// A route: hold clients, point elsewhere, let them go on.
    Route {
        /// Which of these.
        order: RouteOrder,
    },
}

impl Order {
    /// Whether it changes nothing at the node, so that nothing need be remembered of it. Its stamp
    /// is judged like any other.
    pub fn only_looks(&self) -> bool {
        match self {
            Order::PostgresDrain
            | Order::PostgresAwait { .. }
            | Order::RedisAwait { .. }
            | Order::RedisAskMaster { .. } => true,
            Order::PostgresCheckpoint
            | Order::PostgresStop
            | Order::PostgresStart { .. }
            | Order::PostgresAdmit { .. }
            | Order::PostgresPromote { .. }
            | Order::PostgresValidate { .. }
            | Order::PostgresFollow { .. }
            | Order::PostgresJoinBegin { .. }
            | Order::PostgresRename { .. }
            | Order::PostgresJoinProve { .. }
            | Order::PostgresLeave
            | Order::RedisVote
            | Order::RedisPause { .. }
            | Order::RedisFence
            | Order::RedisUnfence { .. }
            | Order::RedisPromote { .. }
            | Order::RedisFollow { .. }
            | Order::RedisStart { .. }
            | Order::RedisAnnounce { .. }
            | Order::RedisSentinelFailover
            | Order::RedisValidate { .. }
            | Order::Route { .. } => false,
        }
    }
}

/// What a node must be to be promoted (P3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteMember {
    /// Its membership.
    pub name: SyncName,
    /// Its cluster.
    pub system: SystemId,
    /// Its timeline.
    pub timeline: Timeline,
    /// It must hold everything up to here.
    pub floor: Lsn,
}

/// What came of a command. A timeout is `Unknown`, never `Failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// It is so now.
    Done {
        /// What was learnt.
        fact: Fact,
    },
    /// The agent did nothing, because it must not.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// It was tried and is not so.
    Failed {
        /// Why, in one sentence.
        why: String,
    },
    /// Nobody knows whether it is so.
    Unknown {
        /// Why not, in one sentence.
        why: String,
    },
}

impl Outcome {
    /// Done, with nothing learnt.
    pub fn done() -> Self {
        Outcome::Done { fact: Fact::Nothing }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done { fact } => match fact.sentence() {
                Some(sentence) => write!(f, "done: {sentence}"),
                None => f.write_str("done"),
            },
            Outcome::Refused { refusal } => write!(f, "refused: {refusal}"),
            Outcome::Failed { why } => write!(f, "failed: {why}"),
            Outcome::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// A refusal with its numbers. The code has a page in the docs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Stable code, lower case with dashes.
    pub code: String,
    /// One sentence with the numbers it was judged by.
    pub sentence: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: &str, sentence: impl Into<String>) -> Self {
        Refusal { code: code.to_owned(), sentence: sentence.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.sentence, self.code)
    }
}

/// Sessions of clients that a stop ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedSessions {
    /// How many.
    pub all: u32,
    /// How many of them were in the middle of a transaction. One whose commit waits for a standby is
    /// not: what becomes of it lies with what that standby has.
    pub in_transaction: u32,
    /// Those that were so for the longest, one sentence each: process, user, application, how long.
    pub named: Vec<String>,
}

impl fmt::Display for EndedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions ended", self.all)?;
        if self.in_transaction == 0 {
            return Ok(());
        }
        write!(
            f,
            ", {} in the middle of a transaction: {}",
            self.in_transaction,
            self.named.join("; ")
        )?;
        match (self.in_transaction as usize).saturating_sub(self.named.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// What an agent learnt while it did something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fact {
    /// Nothing that a later step needs.
    Nothing,
    /// A position in the WAL.
    Wal {
        /// The position.
        position: WalPosition,
    },
    /// The server is down.
    Stopped {
        /// It ended in order, and its last record ends here: the standbys that listened have it.
        clean_at: Option<WalPosition>,
        /// Whom the stop ended.
        ended: EndedSessions,
    },
    /// The server is primary now.
    Promoted {
        /// Where its new timeline begins.
        position: WalPosition,
    },
    /// The server follows now.
    Followed {
        /// `streaming`, `rewind` or `base-backup`; for Redis `partial` or `full`.
        method: String,
        /// What this node had that its new upstream has not, in bytes, and where it is kept.
        diverged_bytes: u64,
        /// Where the diverged data was kept, if there was any.
        kept_at: Option<String>,
    },
    /// A canary was seen waiting.
    Waiting {
        /// The commit it waits for.
        lsn: Lsn,
    },
    /// The member flushed the canary's commit.
    Proven {
        /// Which cluster.
        system: SystemId,
        /// Which timeline.
        timeline: Timeline,
        /// Up to where.
        lsn: Lsn,
    },
    /// Votes of Sentinels.
    Voted {
        /// The epoch won.
        epoch: u64,
        /// Votes won.
        votes: u32,
        /// Sentinels known.
        of: u32,
    },
    /// A position in the Redis stream.
    Offset {
        /// The position.
        position: RedisPosition,
    },
    /// A Redis server is master now.
    RedisPromoted {
        /// Where its new stream begins.
        position: RedisPosition,
    },
    /// Sentinels that name the new master.
    Announced {
        /// How many agree.
        agree: u32,
        /// How many there are.
        of: u32,
        /// With which epoch.
        epoch: u64,
    },
    /// A route holds its clients.
    Held {
        /// Transactions that were still open when it was not waited for them any longer, one
        /// sentence each: whose they are, and in which server process.
        open: Vec<String>,
        /// Clients that wait.
        waiting: u32,
    },
    /// A route lets its clients go on.
    Released {
        /// For how long it held them; 0 if it did not.
        held_ms: u64,
    },
}

impl Fact {
    /// The fact in a few words, for people.
    pub fn sentence(&self) -> Option<String> {
        Some(match self {
            Fact::Nothing => return None,
            Fact::Wal { position } => position.to_string(),
            Fact::Stopped { clean_at: Some(at), ended } => format!("clean at {}, {ended}", at.lsn),
            Fact::Stopped { clean_at: None, ended } => format!("not clean, {ended}"),
            Fact::Promoted { position } => format!("timeline {}", position.timeline),
            Fact::Followed { method, diverged_bytes: 0, .. } => format!("by {method}"),
            Fact::Followed { method, diverged_bytes, kept_at } => format!(
                "by {method}; {diverged_bytes} bytes diverged, kept at {}",
                kept_at.as_deref().unwrap_or("no place")
            ),
            Fact::Waiting { lsn } => format!("a commit waits at {lsn}"),
            Fact::Proven { lsn, .. } => format!("flushed past {lsn}"),
            Fact::Voted { epoch, votes, of } => format!("epoch {epoch}, {votes} of {of} votes"),
            Fact::Offset { position } => position.to_string(),
            Fact::RedisPromoted { position } => format!("master at {position}"),
            Fact::Announced { agree, of, epoch } => {
                format!("{agree} of {of} Sentinels agree, epoch {epoch}")
            }
            Fact::Held { open, waiting } if open.is_empty() => format!("{waiting} clients wait"),
            Fact::Held { open, waiting } => format!(
                "{waiting} clients wait, and {} transactions are still open, which end with the \
                 old server: {}",
                open.len(),
                open.join("; ")
            ),
            Fact::Released { held_ms } => format!("clients waited {held_ms} ms"),
        })
    }
}
