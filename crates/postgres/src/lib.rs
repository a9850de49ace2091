//! The PostgreSQL adapter: looks at one node's server and does what an order says, on the node's
//! own host and as the user that the server runs as.
//!
//! It decides nothing. Which order is right is the core's business, whether an order is too old is
//! the agent's; here an order is refused only when the server's own state forbids it.
//!
//! Start at [`PostgresNode`]. One file per idea: `observe` looks, and every order has a file of
//! its own name; `control`, `wal` and `history` know PostgreSQL's formats; `conf`, `hba` and
//! `conninfo` write its settings; `process`, `command` and `session` talk to it.

mod admit;
mod adopt;
mod autostart;
mod await_wal;
mod base_directory;
mod canary;
mod command;
mod commit_probe;
mod conf;
mod configure;
mod conninfo;
mod control;
mod deadline;
mod durable;
mod ended;
mod follow;
mod hba;
mod history;
mod hold;
mod initialise;
mod join;
mod marker;
mod node;
mod observe;
mod process;
mod promote;
mod proven_stop;
mod quote;
mod rename;
mod session;
mod settings;
mod standby;
mod start;
mod stop;
mod trouble;
mod validate;
mod wal;

pub use adopt::{Adopted, AdoptionLines};
pub use autostart::autostart;
pub use initialise::InitialiseError;
pub use node::PostgresNode;
pub use settings::{ClientNetwork, InvalidNetwork, PostgresNodeSettings, SettingsError};
