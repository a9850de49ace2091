//! The Redis adapter: what an agent sees of its Redis node, and what it can do to it, with
//! Sentinel.
//!
//! It decides nothing. Which node may be master is the record's business; stamps are the agent's;
//! here are only the effects, each safe to repeat, each with a deadline. Redis 7.0 or newer, no
//! TLS, no ACL users: one password for clients, replicas and Sentinels' links.
//!
//! | file | idea |
//! |---|---|
//! | `node` | the node as the agent holds it; which order goes where |
//! | `observe` | the cheap look |
//! | `switch`, `promote`, `follow`, `start`, `validate` | the orders |
//! | `divergence`, `disk`, `last_seen` | data that a new master does not have is kept (D4) |
//! | `sentinel` | vote, hello, authority |
//! | `connection`, `reply`, `info`, `conf`, `files`, `process` | the server's edges |

mod ask_master;
mod autostart;
mod conf;
mod connection;
mod disk;
mod divergence;
mod files;
mod follow;
pub mod hold;
mod in_step;
mod info;
mod last_seen;
mod node;
mod observe;
mod process;
mod promote;
mod reply;
pub mod sentinel;
mod settings;
mod start;
mod switch;
mod trouble;
mod validate;

pub use autostart::autostart;
pub use conf::{FENCED, redis_conf};
pub use node::RedisNode;
pub use sentinel::conf::{SentinelConf, sentinel_conf};
pub use sentinel::hello::Hello;
pub use sentinel::{AUTHORITY_QUORUM, SentinelsTold};
pub use settings::{ProbeDeadlines, RedisNodeSettings};
