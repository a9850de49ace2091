//! How fast it is on this machine. Prints; fails only where something is out of all proportion.

use std::time::{Duration, Instant};

use tier0_store::{AuthorityStore, Embedded, JournalBatch, StoreHandle, Swapped};

use crate::sample::{after, entry, first, summary};

const COMMITS: u32 = 1_000;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let total: Duration = times.iter().sum();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{what}: {:.0}/s, p50 {} µs, p99 {} µs, max {} µs",
        times.len() as f64 / total.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(at(0.5) < 100_000, "{what} is slower than any disk should be");
}

#[test]
fn commits_per_second() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(directory.path()).unwrap();
    let mut record = first();
    assert_eq!(store.create(&record).unwrap(), Swapped::Stored);

    let mut times = Vec::new();
    for number in 0..COMMITS {
        let next = after(&record);
        let batch = JournalBatch::from(summary(number)).with_entry(entry(number, "an intent"));
        let start = Instant::now();
        let swapped = store.swap_with_journal(&record.heard(), &next, &batch).unwrap();
        times.push(start.elapsed());
        assert_eq!(swapped, Swapped::Stored);
        record = next;
    }
    report("swap with journal", times);

    let mut times = Vec::new();
    for _ in 0..COMMITS {
        let start = Instant::now();
        store.append(&entry(1, "an outcome").into()).unwrap();
        times.push(start.elapsed());
    }
    report("append", times);

    let mut times = Vec::new();
    for _ in 0..COMMITS {
        let start = Instant::now();
        store.load().unwrap();
        times.push(start.elapsed());
    }
    report("load", times);

    drop(store);
    let start = Instant::now();
    let store = Embedded::open(directory.path()).unwrap();
    println!("open with {COMMITS} operations: {} µs", start.elapsed().as_micros());

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let store = StoreHandle::start(store).unwrap();
        let mut times = Vec::new();
        for _ in 0..COMMITS {
            let next = after(&record);
            let start = Instant::now();
            let swapped = store.swap(record.heard(), next.clone()).await.unwrap();
            times.push(start.elapsed());
            assert_eq!(swapped, Swapped::Stored);
            record = next;
        }
        report("swap through the handle", times);
        let mut times = Vec::new();
        for _ in 0..COMMITS {
            let start = Instant::now();
            store.load().await.unwrap();
            times.push(start.elapsed());
        }
        report("load through the handle", times);
    });
}
