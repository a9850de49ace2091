//! What the core decides, by transcript: each module tells short stories against a small world and
//! says what must have been ordered, and what never.
//!
//! One program, since compiling the world once for each of them took longer than all of them run.
//! Left out: histories that are drawn or walked through (`random.rs`, `exhaustive.rs`).
#![allow(clippy::unwrap_used, non_snake_case)]

#[path = "../world/mod.rs"]
mod world;

mod asked;
mod automatic;
mod availability;
mod max_protection;
mod protection;
mod readiness;
mod routes;
mod seats;
mod switch;
mod way_back;
mod words;
