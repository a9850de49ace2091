//! What every store must do, written against the trait alone: a new store adds one test that calls
//! [`conforms`] with a way to make an empty one.

use tier0_core::words::{Epoch, Revision, WallMillis};
use tier0_store::{
    AuthorityStore, Embedded, JournalBatch, KEY_LIFE_MILLIS, OperationResult, StoreError, Swapped,
};

use crate::sample::{after, entry, events, first, operation, summary};

/// Run the whole suite; `empty` makes a store that never held anything.
pub fn conforms<S: AuthorityStore>(mut empty: impl FnMut() -> S) {
    begins_empty(empty());
    creates_once(empty());
    swaps_only_from_the_expected_record(empty());
    refuses_what_cannot_follow(empty());
    keeps_history(empty());
    swaps_and_journals_together(empty());
    keeps_the_journal(empty());
    lists_operations(empty());
    remembers_keys(empty());
}

#[test]
fn embedded_store_conforms() {
    let mut directories = Vec::new();
    conforms(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(directory.path()).unwrap();
        directories.push(directory);
        store
    });
}

fn begins_empty(mut store: impl AuthorityStore) {
    assert_eq!(store.load().unwrap(), None);
    assert_eq!(store.history(10).unwrap(), []);
    assert_eq!(store.operations(10, None).unwrap(), []);
    assert_eq!(store.operation(&operation(1)).unwrap(), None);
    let record = first();
    let error = store.swap(&record.heard(), &after(&record)).unwrap_err();
    assert!(matches!(error, StoreError::NoRecord), "{error}");
}

fn creates_once(mut store: impl AuthorityStore) {
    let record = first();
    assert_eq!(store.create(&record).unwrap(), Swapped::Stored);
    assert_eq!(store.load().unwrap(), Some(record.clone()));
    let mut other = first();
    other.writer = "region2".parse().unwrap();
    let lost = Swapped::Lost { current: Box::new(record.clone()) };
    assert_eq!(store.create(&other).unwrap(), lost);
    assert_eq!(store.load().unwrap(), Some(record));
}

fn swaps_only_from_the_expected_record(mut store: impl AuthorityStore) {
    let one = first();
    assert_eq!(store.create(&one).unwrap(), Swapped::Stored);
    let mut two = after(&one);
    two.epoch = two.epoch.next();
    two.writer = "region2".parse().unwrap();
    assert_eq!(store.swap(&one.heard(), &two).unwrap(), Swapped::Stored);
    assert_eq!(store.load().unwrap(), Some(two.clone()));

    let lost = Swapped::Lost { current: Box::new(two.clone()) };
    assert_eq!(store.swap(&one.heard(), &after(&one)).unwrap(), lost, "older revision");
    let ahead = after(&two);
    assert_eq!(store.swap(&ahead.heard(), &after(&ahead)).unwrap(), lost, "newer revision");
    let mut same_revision = two.clone();
    same_revision.epoch = Epoch::FIRST;
    assert_eq!(
        store.swap(&same_revision.heard(), &after(&same_revision)).unwrap(),
        lost,
        "same revision, another epoch"
    );
    let mut foreign = two.clone();
    foreign.lineage = "0192ffff-0000-7000-8000-000000000009".parse().unwrap();
    assert_eq!(store.swap(&foreign.heard(), &after(&foreign)).unwrap(), lost, "another lineage");
    assert_eq!(store.load().unwrap(), Some(two));
}

fn refuses_what_cannot_follow(mut store: impl AuthorityStore) {
    let one = first();
    assert_eq!(store.create(&one).unwrap(), Swapped::Stored);
    let with = |change: &dyn Fn(&mut tier0_core::record::Record)| {
        let mut next = after(&one);
        change(&mut next);
        next
    };
    let cases = [
        ("same revision", with(&|next| next.revision = Revision::FIRST)),
        ("revision two on", with(&|next| next.revision = Revision::read(3))),
        ("epoch two on", with(&|next| next.epoch = Epoch::read(3))),
        ("epoch back", with(&|next| next.epoch = Epoch::read(0))),
        (
            "another lineage",
            with(&|next| next.lineage = "0192ffff-0000-7000-8000-000000000009".parse().unwrap()),
        ),
        ("another stack", with(&|next| next.stack = "other".parse().unwrap())),
        ("writer without epoch", with(&|next| next.writer = "region2".parse().unwrap())),
    ];
    for (case, next) in cases {
        let error = store.swap(&one.heard(), &next).expect_err(case);
        assert!(matches!(error, StoreError::NotASuccessor { .. }), "{case}: {error}");
        assert_eq!(store.load().unwrap(), Some(one.clone()), "{case}");
    }
    let error = store.swap(&one.heard(), &with(&|next| next.format = 99)).unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert_eq!(store.swap(&one.heard(), &after(&one)).unwrap(), Swapped::Stored);
}

fn keeps_history(mut store: impl AuthorityStore) {
    let mut record = first();
    assert_eq!(store.create(&record).unwrap(), Swapped::Stored);
    for _ in 0..4 {
        let next = after(&record);
        assert_eq!(store.swap(&record.heard(), &next).unwrap(), Swapped::Stored);
        record = next;
    }
    let revisions = |limit: u32, store: &mut dyn AuthorityStore| -> Vec<u64> {
        let history = store.history(limit).unwrap();
        history.iter().map(|past| past.record.revision.number()).collect()
    };
    assert_eq!(revisions(10, &mut store), [5, 4, 3, 2, 1]);
    assert_eq!(revisions(2, &mut store), [5, 4]);
    assert!(store.history(1).unwrap()[0].at.0 > 1_700_000_000_000);
}

fn swaps_and_journals_together(mut store: impl AuthorityStore) {
    let one = first();
    assert_eq!(store.create(&one).unwrap(), Swapped::Stored);
    let batch = JournalBatch::from(summary(1)).with_entry(entry(1, "claim"));
    let stale = after(&one);
    assert!(matches!(
        store.swap_with_journal(&stale.heard(), &after(&stale), &batch).unwrap(),
        Swapped::Lost { .. }
    ));
    assert_eq!(store.operation(&operation(1)).unwrap(), None, "a lost swap journals nothing");

    let two = after(&one);
    assert_eq!(store.swap_with_journal(&one.heard(), &two, &batch).unwrap(), Swapped::Stored);
    assert_eq!(store.load().unwrap(), Some(two));
    let (stored, entries) = store.operation(&operation(1)).unwrap().unwrap();
    assert_eq!(stored, summary(1));
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].new, entry(1, "claim"));
}

fn keeps_the_journal(mut store: impl AuthorityStore) {
    let record = first();
    assert_eq!(store.create(&record).unwrap(), Swapped::Stored);
    store.append(&summary(1).into()).unwrap();
    store.append(&summary(2).into()).unwrap();
    for event in events() {
        for number in [1, 2] {
            let entry = tier0_store::NewEntry { event: event.clone(), ..entry(number, "") };
            store.append(&entry.into()).unwrap();
        }
    }
    store.append(&JournalBatch::default()).unwrap();
    assert_eq!(store.load().unwrap(), Some(record), "the journal leaves the record alone");
    for number in [1, 2] {
        let (_, entries) = store.operation(&operation(number)).unwrap().unwrap();
        let read: Vec<_> = entries.iter().map(|entry| entry.new.event.clone()).collect();
        assert_eq!(read, events());
        assert!(entries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
        assert!(entries.iter().all(|entry| entry.new.operation == operation(number)));
    }
}

fn lists_operations(mut store: impl AuthorityStore) {
    for number in 1..=5 {
        store.append(&summary(number).into()).unwrap();
    }
    let mut done = summary(2);
    done.result = OperationResult::Succeeded;
    done.finished = Some(WallMillis(1_790_000_000_071));
    done.epoch_after = Some(Epoch::read(2));
    done.total_micros = Some(71_000);
    store.append(&done.clone().into()).unwrap();

    let ids = |limit: u32, before: Option<u32>, store: &mut dyn AuthorityStore| {
        let before = before.map(operation);
        let list = store.operations(limit, before.as_ref()).unwrap();
        list.into_iter().map(|summary| summary.id).collect::<Vec<_>>()
    };
    let expected = |numbers: &[u32]| numbers.iter().copied().map(operation).collect::<Vec<_>>();
    assert_eq!(ids(10, None, &mut store), expected(&[5, 4, 3, 2, 1]), "an update keeps the order");
    assert_eq!(ids(2, None, &mut store), expected(&[5, 4]));
    assert_eq!(ids(2, Some(4), &mut store), expected(&[3, 2]));
    assert_eq!(ids(10, Some(1), &mut store), expected(&[]));
    assert_eq!(ids(10, Some(99), &mut store), expected(&[]), "an unknown operation");
    assert_eq!(store.operation(&operation(2)).unwrap().unwrap().0, done);
}

fn remembers_keys(mut store: impl AuthorityStore) {
    let start = 1_790_000_000_000;
    let mut ask = |key: &str, number: u32, at: i64| {
        store.remember_key(key, &operation(number), WallMillis(at)).unwrap()
    };
    assert_eq!(ask("a", 1, start), None);
    assert_eq!(ask("b", 2, start), None);
    assert_eq!(ask("a", 3, start + 1), Some(operation(1)));
    assert_eq!(ask("a", 3, start - 5_000), Some(operation(1)), "a clock that went back");
    assert_eq!(ask("a", 3, start + KEY_LIFE_MILLIS - 1), Some(operation(1)));
    assert_eq!(ask("a", 3, start + KEY_LIFE_MILLIS), None, "forgotten after its life");
    assert_eq!(ask("a", 4, start + KEY_LIFE_MILLIS), Some(operation(3)));
    assert_eq!(ask(&"k".repeat(500), 5, start), None, "the longest");
    for key in [String::new(), "k".repeat(501)] {
        let error = store.remember_key(&key, &operation(1), WallMillis(start)).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
}
