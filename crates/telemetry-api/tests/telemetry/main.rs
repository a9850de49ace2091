//! The service as a whole against real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod frozen;
mod moves;
mod partitions;
mod servers;
