//! Answers that are lost, and requests that arrive when nobody waits for them any more (R4).

use tier0_core::words::WallMillis;
use tier0_store::{AuthorityStore, JournalBatch, StoreError, Swapped};

use super::cluster::shared;
use super::proxy::{Mode, Proxy};
use super::swap_surely;
use crate::sample::{after, entry, first, operation, summary};

/// How many of these transactions etcd says to have carried out.
fn carried_out(late: &[String]) -> usize {
    assert!(late.iter().all(|answer| answer.contains("raft_term")), "not from etcd: {late:?}");
    late.iter().filter(|answer| answer.contains("\"succeeded\":true")).count()
}

/// The only way to the cluster keeps the swap back. The store says that it does not know; once it has
/// loaded the record, the swap can arrive and is not carried out.
#[test]
fn swap_that_arrives_late_is_never_carried_out() {
    let Some(cluster) = shared("swap_that_arrives_late_is_never_carried_out") else { return };
    let proxy = Proxy::before(&cluster.addresses()[0]);
    let mut store = cluster.store_on(vec![proxy.address.clone()], "late");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    // What else a swap needs to know is known then: it is the first to be sent.
    store.append(&summary(1).into()).unwrap();
    let batch = JournalBatch::from(summary(1)).with_entry(entry(1, "late"));

    proxy.set(Mode::HoldRequests);
    let error = store.swap_with_journal(&first().heard(), &after(&first()), &batch).unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    proxy.set(Mode::Pass);
    assert_eq!(store.load().unwrap(), Some(first()), "not stored so far");

    let late = proxy.release();
    assert_eq!(carried_out(&late), 0, "of {} that came late", late.len());
    assert_eq!(store.load().unwrap(), Some(first()), "and never will be");
    assert_eq!(store.operation(&operation(1)).unwrap().unwrap().1, []);
    let next = after(&first());
    assert_eq!(store.swap_with_journal(&first().heard(), &next, &batch).unwrap(), Swapped::Stored);
}

/// The same for an operation that is written without a record, which nothing but the fence guards:
/// an old summary must not replace a newer one.
#[test]
fn summary_that_arrives_late_replaces_nothing() {
    let Some(cluster) = shared("summary_that_arrives_late_replaces_nothing") else { return };
    let proxy = Proxy::before(&cluster.addresses()[0]);
    let addresses = vec![proxy.address.clone(), cluster.addresses()[1].clone()];
    let mut store = cluster.store_on(addresses, "late-summary");
    store.append(&summary(1).into()).unwrap();
    let mut old = summary(1);
    old.reason = "old".to_owned();
    let mut new = summary(1);
    new.reason = "new".to_owned();

    proxy.set(Mode::HoldRequests);
    store.append(&old.into()).unwrap();
    store.append(&new.clone().into()).unwrap();
    let late = proxy.release();
    assert_eq!(carried_out(&late), 0, "of {} that came late", late.len());
    assert_eq!(store.operation(&operation(1)).unwrap().unwrap().0, new);
}

/// Carried out, and the answer is lost: the attempt at another member finds it done, once.
#[test]
fn lost_answers_are_found_out_at_another_member() {
    let Some(cluster) = shared("lost_answers_are_found_out_at_another_member") else { return };
    let proxy = Proxy::before(&cluster.addresses()[0]);
    // For each call the member whose answers are lost comes first.
    let store = || {
        let addresses = vec![proxy.address.clone(), cluster.addresses()[1].clone()];
        cluster.store_on(addresses, "lost-answers")
    };
    proxy.set(Mode::SwallowAnswers);
    assert_eq!(store().create(&first()).unwrap(), Swapped::Stored);
    let mut swapping = store();
    // Reads its answers at the first member, and writes there then.
    proxy.set(Mode::Pass);
    assert_eq!(swapping.load().unwrap(), Some(first()));
    swapping.append(&summary(1).into()).unwrap();
    proxy.set(Mode::SwallowAnswers);
    let batch = JournalBatch::from(summary(1)).with_entry(entry(1, "swapped"));
    let next = after(&first());
    let swapped = swapping.swap_with_journal(&first().heard(), &next, &batch).unwrap();
    assert_eq!(swapped, Swapped::Stored);
    let mut appending = store();
    appending.append(&entry(1, "appended").into()).unwrap();
    let at = WallMillis(1_790_000_000_000);
    assert_eq!(store().remember_key("key", &operation(1), at).unwrap(), None);
    assert!(proxy.swallowed() >= 4, "{} answers were lost", proxy.swallowed());

    proxy.set(Mode::Pass);
    let mut store = store();
    assert_eq!(store.load().unwrap(), Some(next.clone()));
    let (_, entries) = store.operation(&operation(1)).unwrap().unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| entry.new).collect();
    assert_eq!(entries, [entry(1, "swapped"), entry(1, "appended")]);
    assert_eq!(store.remember_key("key", &operation(2), at).unwrap(), Some(operation(1)));
    swap_surely(&mut store, &next, &JournalBatch::default());
}

/// Carried out, the answer lost, and another orchestrator has swapped since: it was stored all the
/// same, and the past records say so.
#[test]
fn swap_that_others_followed_was_stored() {
    let Some(cluster) = shared("swap_that_others_followed_was_stored") else { return };
    let proxy = Proxy::before(&cluster.addresses()[0]);
    let mut store = cluster.store_on(vec![proxy.address.clone()], "followed");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    proxy.set(Mode::SwallowAnswers);
    let next = after(&first());
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| store.swap(&first().heard(), &next));
        let mut other = cluster.store("followed");
        let mut newest = first();
        while newest == first() {
            newest = other.load().unwrap().unwrap();
        }
        assert_eq!(newest, next);
        let last = after(&next);
        assert_eq!(other.swap(&next.heard(), &last).unwrap(), Swapped::Stored);
        proxy.set(Mode::Pass);
        match swapping.join().unwrap() {
            Ok(swapped) => assert_eq!(swapped, Swapped::Stored),
            // All of its time had passed before answers came through again.
            Err(error) => assert!(matches!(error, StoreError::Unknown { .. }), "{error}"),
        }
        assert_eq!(other.load().unwrap(), Some(last));
    });
}
