//! The router between real connections: clients and servers are small TCP programs, since that is
//! all the router knows of them. Left out: real servers behind it (the tests of `tier0-route`).
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod crowd;
mod ports;
mod support;
