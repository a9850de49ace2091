//! Members that are killed or frozen while orchestrators swap.

use rustix::process::Signal;
use tier0_core::record::Record;
use tier0_store::{AuthorityStore, Etcd, JournalBatch, JournalEvent, StoreError, Swapped};

use super::cluster::Cluster;
use super::{chain, loaded, swap_surely};
use crate::sample::{after, entry, first, operation, summary};

/// Swap so many times, with an entry each.
fn swaps(store: &mut Etcd, mut record: Record, count: u64) -> (Record, u32) {
    let mut looked = 0;
    for _ in 0..count {
        let sentence = format!("to revision {}", record.revision.next());
        let batch = JournalBatch::from(summary(1)).with_entry(entry(1, &sentence));
        let (next, times) = swap_surely(store, &record, &batch);
        record = next;
        looked += times;
    }
    (record, looked)
}

/// Every revision up to this one is there once, and so is its entry.
fn assert_whole(store: &mut Etcd, newest: u64) {
    let past = store.history(10_000).unwrap();
    let revisions: Vec<u64> = past.iter().map(|past| past.record.revision.number()).collect();
    assert_eq!(revisions, (1..=newest).rev().collect::<Vec<_>>());
    let (_, entries) = store.operation(&operation(1)).unwrap().unwrap();
    let sentences: Vec<String> = entries
        .into_iter()
        .map(|entry| match entry.new.event {
            JournalEvent::Intent { sentence } => sentence,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<String> =
        (2..=newest).map(|revision| format!("to revision {revision}")).collect();
    assert_eq!(sentences, expected);
}

/// The leader goes to the member that is named first, and stays there.
#[test]
fn leader_is_drawn_to_the_first_member() {
    let Some(cluster) = Cluster::start("leader_is_drawn_to_the_first_member", 3) else { return };
    for nearest in [0, 1, 2, 2] {
        let mut addresses = cluster.addresses();
        addresses.rotate_left(nearest);
        let mut store = cluster.store_on(addresses, "near");
        store.draw_near().unwrap();
        assert_eq!(cluster.wait_for_leader(), nearest);
        assert_eq!(store.load().unwrap(), None);
    }
}

#[test]
fn goes_on_when_members_are_killed_or_frozen() {
    let Some(cluster) = Cluster::start("goes_on_when_members_are_killed_or_frozen", 3) else {
        return;
    };
    let mut store = cluster.store("members");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    let (record, _) = swaps(&mut store, first(), 20);

    cluster.kill(0);
    let (record, looked) = swaps(&mut store, record, 20);
    println!("the member that was asked is killed: looked {looked} times");
    cluster.start_again(0);
    let leader = cluster.wait_for_leader();
    let (record, _) = swaps(&mut store, record, 5);

    // Asks the leader, and finds it frozen.
    let mut addresses = cluster.addresses();
    addresses.rotate_left(leader);
    let mut store = cluster.store_on(addresses, "members");
    assert_eq!(store.load().unwrap(), Some(record.clone()));
    cluster.signal(leader, Signal::STOP);
    let (record, looked) = swaps(&mut store, record, 20);
    println!("the leader is frozen: looked {looked} times");
    cluster.signal(leader, Signal::CONT);
    let (record, _) = swaps(&mut store, record, 5);
    assert_eq!(loaded(&mut store), record);
    assert_whole(&mut store, 71);
}

#[test]
fn without_a_majority_nothing_is_claimed() {
    let Some(cluster) = Cluster::start("without_a_majority_nothing_is_claimed", 3) else { return };
    let mut store = cluster.store("majority");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    let leader = cluster.wait_for_leader();
    let followers: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    followers.iter().for_each(|member| cluster.kill(*member));

    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::Access { .. }), "{error}");
    for address in cluster.addresses() {
        assert!(chain(&error).contains(&address), "which were asked: {}", chain(&error));
    }
    let next = after(&first());
    let error = store.swap(&first().heard(), &next).unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    // Nobody listens: nothing can have been stored.
    cluster.kill(leader);
    let mut fresh = cluster.store("majority");
    let error = fresh.create(&first()).unwrap_err();
    println!("{}", chain(&error));
    assert!(matches!(error, StoreError::Access { .. }), "{error}");

    (0..3).for_each(|member| cluster.start_again(member));
    cluster.wait_for_leader();
    let record = loaded(&mut store);
    assert!(record == first() || record == next, "{}", record.heard());
    let (record, _) = swap_surely(&mut store, &record, &JournalBatch::default());
    assert_eq!(loaded(&mut store), record);
}
