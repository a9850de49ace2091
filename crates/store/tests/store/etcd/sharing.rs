//! What several who share the store may rely on.

use tier0_store::{AuthorityStore, Etcd, JournalBatch, StoreError, Swapped};

use super::cluster::shared;
use super::{loaded, swap_surely};
use crate::conformance::conforms;
use crate::sample::{after, entry, first, operation, summary};

const RACERS: u32 = 3;
const ROUNDS: u32 = 20;

#[test]
fn etcd_store_conforms() {
    let Some(cluster) = shared("etcd_store_conforms") else { return };
    let mut number = 0;
    conforms(|| {
        number += 1;
        cluster.store(&format!("conforms-{number}"))
    });
}

fn round_of_nobody(round: u32) -> JournalBatch {
    JournalBatch::from(summary(round)).with_entry(entry(round, "nobody won"))
}

#[test]
fn exactly_one_of_many_orchestrators_wins() {
    let Some(cluster) = shared("exactly_one_of_many_orchestrators_wins") else { return };
    let mut store = cluster.store("race");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    // Each through another member, as the orchestrators of three sites do it. What they want to
    // store is the same but for the journal.
    let mut racers: Vec<Etcd> = (0..RACERS)
        .map(|racer| {
            let mut addresses = cluster.addresses();
            addresses.rotate_left(racer as usize);
            cluster.store_on(addresses, "race")
        })
        .collect();
    let mut newest = first();
    for round in 0..ROUNDS {
        let record = newest;
        let next = after(&record);
        let race = |(racer, store): (u32, &mut Etcd)| {
            let sentence = format!("round {round} racer {racer}");
            let batch = JournalBatch::from(summary(round)).with_entry(entry(round, &sentence));
            store.swap_with_journal(&record.heard(), &next, &batch)
        };
        let came_of_it: Vec<Result<Swapped, StoreError>> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..)
                .zip(&mut racers)
                .map(|racer| {
                    let race = &race;
                    scope.spawn(move || race(racer))
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        // On a machine that is busy with something else one may not know; it is one of them all
        // the same.
        let (mut won, mut unknown) = (0, 0);
        for swapped in came_of_it {
            match swapped {
                Ok(Swapped::Stored) => won += 1,
                Ok(Swapped::Lost { current }) => assert_eq!(*current, next),
                Err(StoreError::Unknown { .. } | StoreError::Access { .. }) => unknown += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(won == 1 || (won == 0 && unknown > 0), "round {round}: {won} won");
        // Each settles what it does not know of, so the last one reads what stays.
        newest = racers.iter_mut().map(loaded).last().unwrap();
        if newest == record {
            assert!(won == 0, "round {round}");
            newest = swap_surely(&mut store, &record, &round_of_nobody(round)).0;
        }
    }
    let record = store.load().unwrap().unwrap();
    assert_eq!(record.revision.number(), u64::from(ROUNDS) + 1);
    let listed = store.operations(100, None).unwrap();
    let expected: Vec<_> = (0..ROUNDS).rev().map(operation).collect();
    assert_eq!(listed.into_iter().map(|summary| summary.id).collect::<Vec<_>>(), expected);
    for round in 0..ROUNDS {
        let (_, entries) = store.operation(&operation(round)).unwrap().unwrap();
        assert_eq!(entries.len(), 1, "only the winner's");
    }
}

#[test]
fn one_key_starts_one_operation_for_all() {
    let Some(cluster) = shared("one_key_starts_one_operation_for_all") else { return };
    let (mut one, mut two) = (cluster.store("keys"), cluster.store("keys"));
    let at = tier0_core::words::WallMillis(1_790_000_000_000);
    assert_eq!(one.remember_key("a/b", &operation(1), at).unwrap(), None);
    assert_eq!(two.remember_key("a/b", &operation(2), at).unwrap(), Some(operation(1)));
}

#[test]
fn stacks_leave_each_other_alone() {
    let Some(cluster) = shared("stacks_leave_each_other_alone") else { return };
    let (mut one, mut two) = (cluster.store("st"), cluster.store("st-2"));
    assert_eq!(one.create(&first()).unwrap(), Swapped::Stored);
    one.append(&summary(1).into()).unwrap();
    assert_eq!(two.load().unwrap(), None);
    assert_eq!(two.operations(10, None).unwrap(), []);
    assert_eq!(two.create(&first()).unwrap(), Swapped::Stored);
    assert_eq!(two.swap(&first().heard(), &after(&first())).unwrap(), Swapped::Stored);
    assert_eq!(one.load().unwrap(), Some(first()));
    assert_eq!(one.history(10).unwrap().len(), 1);
}
