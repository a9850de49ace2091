//! Tests of the stores as their users see them. The conformance suite is generic over the trait;
//! the rest is about the embedded store and its files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod crash;
mod damage;
mod opening;
mod race;
mod sample;
mod speed;
