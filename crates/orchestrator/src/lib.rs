//! The orchestrator: one loop that feeds the core and performs what it asks for, the store of the
//! authority record, and the API for operators.
//!
//! It owns no decision. It never touches a data server; agents do, on stamped commands.

mod adopt;
mod agents;
mod api;
mod availability;
mod closing;
mod driver;
mod following;
mod journal;
mod metrics;
mod peers;
mod readiness;
mod report;
mod server;
mod status;

pub use adopt::{Adoption, adopt, plan_adoption};
pub use api::openapi;
pub use server::run;
