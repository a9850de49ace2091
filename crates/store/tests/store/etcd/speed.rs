//! How fast it is on this machine, where all three members share the processors and the disk. Prints
//! and asserts no time.

use std::time::{Duration, Instant};

use tier0_store::{AuthorityStore, JournalBatch, Swapped};

use super::cluster::shared;
use super::proxy::Proxy;
use super::{loaded, swap_surely};
use crate::sample::{entry, first, summary};

const TIMES: u32 = 200;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!("etcd, {what}: p50 {} µs, p99 {} µs, max {} µs", at(0.5), at(0.99), at(1.0));
}

#[test]
fn calls_take() {
    let Some(cluster) = shared("calls_take") else { return };
    let mut store = cluster.store("speed");
    let mut record = first();
    assert_eq!(store.create(&record).unwrap(), Swapped::Stored);
    let mut times = Vec::new();
    for number in 0..TIMES {
        let batch = JournalBatch::from(summary(number)).with_entry(entry(number, "an intent"));
        let start = Instant::now();
        let (next, looked) = swap_surely(&mut store, &record, &batch);
        if looked == 0 {
            times.push(start.elapsed());
        }
        record = next;
    }
    report("swap with journal", times);
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        loaded(&mut store);
        times.push(start.elapsed());
    }
    report("load", times);
}

/// Nothing runs between calls, so whether a connection is free again when the next call is made is not
/// to be taken for granted.
#[test]
fn calls_share_a_connection() {
    let Some(cluster) = shared("calls_share_a_connection") else { return };
    let proxy = Proxy::before(&cluster.addresses()[0]);
    let mut store = cluster.store_on(vec![proxy.address.clone()], "connection");
    for _ in 0..100 {
        // A machine that is busy with something else may cost an answer, and so a connection.
        let _ = store.load();
    }
    assert!(proxy.connections() < 50, "{} connections for 100 calls", proxy.connections());
    println!("etcd: {} connections for 100 calls", proxy.connections());
}
