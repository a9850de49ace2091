//! The adapters against a real PgBouncer, a real HAProxy and the real router, between clients and two real PostgreSQL
//! servers, one scenario for each promise. The two servers are both primaries: which of them answers
//! is what is looked at. What every kind promises is in `conformance`, what one kind does besides in
//! the others.
//!
//! PostgreSQL and PgBouncer refuse to run as root; started as root, each test runs itself again as
//! the system user `postgres`. Nothing asserts a duration except where a bound is the promise, and
//! then only generously.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod conformance;
mod front;
mod haproxy;
mod harness;
mod holds;
mod proxy;
mod switches;
