//! The lab: a whole stack of real servers on one machine, traffic with a ledger that knows what
//! was promised, and the demo.
//!
//! It makes places, secrets and the stack file, and starts the roles; it decides nothing about the
//! stack, and never touches a data server that tier0 looks after.

pub mod account;
pub mod api;
pub mod bench;
pub mod command;
pub mod demo;
pub mod down;
pub mod exec;
pub mod fault;
pub mod files;
mod initialise;
pub mod launch;
pub mod ledger;
pub mod load;
mod members;
pub mod network;
pub mod placement;
pub mod plan;
mod pools;
pub mod preflight;
pub mod prober;
pub mod processes;
pub mod progress;
mod routers;
mod scenario;
pub mod secrets;
mod sentinels;
mod signals;
pub mod skipped;
mod soak;
pub mod state;
pub mod status;
mod traffic;
pub mod up;

pub use command::{LabCommand, run};
pub use initialise::initialise_node;
pub use network::forwarder::run as run_links;
