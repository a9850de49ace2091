//! The agent: beside the data servers of one region, the only role that touches them.
//!
//! It owns no decision but one: whether to obey a command, by its stamp
//! ([`tier0_core::agent::judge`]). What it heard and obeyed is durable before it acts (R1, R2). It
//! holds no credentials of the store, and its servers live on when it ends.
//!
//! Not here: how a server is stopped, promoted or rewound (the adapters), and when (the core).

mod adapter;
mod boot;
mod desk;
mod holder;
mod host;
mod node;
mod promise;
mod server;
mod slots;
mod state;

pub use desk::Desk;
pub use server::run;
pub use state::{State, StateError};
