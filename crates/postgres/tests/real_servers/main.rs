//! The adapter against real PostgreSQL servers, one scenario for each promise.
//!
//! PostgreSQL refuses to run as root; started as root, each test runs itself again as the system
//! user `postgres`. Run with `--nocapture` to see how long each order took. Nothing asserts a
//! duration except where a bound is the promise, and then only generously.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod first_node;
mod harness;
mod membership;
mod promotion;
mod rejoin;
mod stopping;
