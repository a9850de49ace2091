//! The built-in router: TCP ports beside the clients of a region, each of which leads to the writer
//! of one datastore, and a second one that leads those who only read to the nearest server. New
//! connections are held while the writer moves, those that are open are cut when it has moved; who
//! reads elsewhere is left alone.
//!
//! It calls nobody on the way of a connection: where a route points is in memory, told by the agent
//! over a Unix socket and kept in a file with the epoch. An older epoch is refused; a hold ends by
//! itself; where reads are strict, nothing passes without a lease. Left out: what is inside the
//! connections (so a session that is open is cut, not moved) and encryption.

mod carry;
mod connection;
mod control;
mod header;
mod lease;
mod pipe;
mod server;
mod socket;
mod state;
mod workers;

pub use server::{Way, run, serve};
