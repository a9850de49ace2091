//! The ledger: writers that note every acknowledged write outside the stores, and a checker that
//! reads everything back and names what is missing.
//!
//! An outcome is one of three: *acknowledged*, *failed* (certainly not done; the same id is tried
//! again) and *unknown* (no answer after it was sent; the id is never used again). What a store
//! promised is what it acknowledged, so only acknowledged ids can be missing.

mod checker;
mod file;
mod finder;
mod gap;
mod postgres;
mod redis_client;
mod report;
mod targets;
mod traffic;
mod writer;
mod writer_postgres;
mod writer_redis;
mod writer_routed;

pub use checker::check;
pub use file::{Entry, LedgerFile, WriterLedger, read_directory};
pub use gap::{Gap, Latencies};
pub use postgres::{Access, Session, describe as describe_postgres};
pub use redis_client::{ask_sentinel, connect as connect_redis};
pub use report::{CheckReport, PathCheck};
pub use targets::{PostgresTarget, RedisSource, RedisTarget, Targets};
pub(crate) use traffic::run_name;
pub use traffic::{PathSummary, Through, Traffic, TrafficPlan, TrafficSummary};

use serde::{Deserialize, Serialize};

/// The ways on which writes are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WritePath {
    /// A commit in PostgreSQL.
    Postgres,
    /// A commit in PostgreSQL, through a PgBouncer.
    Routed,
    /// A commit in PostgreSQL, through a router.
    Proxied,
    /// `SET` in Redis.
    Redis,
    /// `SET` in Redis, acknowledged only after `WAIT 1` counted a replica.
    RedisWait,
    /// A reading that the reference backend answered 201 for.
    Http,
    /// `SET` in Redis, through a router.
    RedisProxied,
}

impl WritePath {
    /// All of them.
    pub const ALL: [WritePath; 7] = [
        WritePath::Postgres,
        WritePath::Routed,
        WritePath::Proxied,
        WritePath::Redis,
        WritePath::RedisWait,
        WritePath::RedisProxied,
        WritePath::Http,
    ];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            WritePath::Postgres => "PostgreSQL",
            WritePath::Routed => "via PgBouncer",
            WritePath::Proxied => "via router",
            WritePath::Redis => "Redis",
            WritePath::RedisWait => "Redis + WAIT",
            WritePath::Http => "HTTP",
            WritePath::RedisProxied => "Redis via router",
        }
    }

    /// In the name of a run.
    pub(crate) fn short(self) -> &'static str {
        match self {
            WritePath::Postgres => "pg",
            WritePath::Routed => "pool",
            WritePath::Proxied => "proxy",
            WritePath::Redis => "redis",
            WritePath::RedisWait => "wait",
            WritePath::Http => "http",
            WritePath::RedisProxied => "rproxy",
        }
    }
}
