//! Whole stacks of real servers: what the product promises, shown on them.
//!
//! One stack is used by all scenarios that can share one ([`stack::shared`]); the others bring up
//! their own. Run one group by its name:
//! `cargo test -p tier0 --features failpoints --test whole_stack refusals`. The binary has the places at
//! which a test can end a role (`tier0-failpoint`). `TIER0_LONG=1` runs what takes longer than a few
//! minutes together.

#![allow(clippy::unwrap_used)]

mod stack;

mod api;
mod automatic;
mod availability;
mod examples;
mod failpoints;
mod false_alarms;
mod frozen;
mod fuzz;
mod killed_roles;
mod lab;
mod leases;
mod lost_region;
mod max_protection;
mod monitoring;
mod network;
mod orchestrators;
mod prediction;
mod protection;
mod reboot;
mod refusals;
mod repairs;
mod routers;
mod routes;
mod settings;
mod specification;
mod support;
mod switching;
mod telemetry;
mod troubleshooting;
