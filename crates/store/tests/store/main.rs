//! Tests of the stores as their users see them. The conformance suite is generic over the trait;
//! what is below `etcd` is about that store, the rest about the embedded one and its files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod crash;
mod damage;
mod etcd;
mod opening;
mod race;
mod sample;
mod speed;
