//! What lies in etcd: what is refused, how much is listed, what is forgotten.

use tier0_core::record::Record;
use tier0_core::words::{Revision, WallMillis};
use tier0_store::{
    AuthorityStore, Etcd, EtcdSettings, KEY_LIFE_MILLIS, OperationResult, OperationSummary,
    StoreError, Swapped,
};

use super::cluster::shared;
use crate::sample::{after, entry, first, operation, summary};

#[test]
fn damaged_record_is_refused() {
    let Some(cluster) = shared("damaged_record_is_refused") else { return };
    let mut store = cluster.store("damage");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    let (record, heard) = ("/tier0/damage/record", "/tier0/damage/heard");
    let whole = cluster.get(record).unwrap();
    let mut damaged = |what: &str| {
        let error = store.load().expect_err(what);
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
    };
    for offset in (0..whole.len()).step_by(29) {
        let mut bytes = whole.clone().into_bytes();
        bytes[offset] ^= 1;
        cluster.put(record, bytes);
        damaged(&format!("byte {offset}"));
    }
    cluster.put(record, [0xff, 0xfe]);
    damaged("not text");
    cluster.put(record, &whole[..whole.len() / 2]);
    damaged("half of it");
    cluster.delete(record);
    damaged("gone, and heard is there");
    cluster.put(record, &whole);
    let named = cluster.get(heard).unwrap();
    cluster.put(heard, named.replace(" 1 1", " 1 2"));
    damaged("another one than it says");
    cluster.delete(heard);
    damaged("nothing says which");
    cluster.put(heard, &named);
    assert_eq!(store.load().unwrap(), Some(first()));
}

/// What a person puts in place is there, whatever was there, and that is kept.
#[test]
fn adopted_record_replaces_what_was_there_and_keeps_it() {
    let Some(cluster) = shared("adopted_record_replaces_what_was_there_and_keeps_it") else {
        return;
    };
    let mut store = cluster.store("adopt");
    assert_eq!(store.adopt(&first()).unwrap(), None, "there was nothing");
    assert_eq!(store.load().unwrap(), Some(first()));
    cluster.put("/tier0/adopt/record", "damaged");
    assert!(matches!(store.load().unwrap_err(), StoreError::Damaged { .. }));
    let mut far = first();
    far.revision = Revision::read(70);
    let aside = store.adopt(&far).unwrap().expect("what was there is kept");
    assert_eq!(cluster.get(&aside).as_deref(), Some("damaged"));
    assert_eq!(store.load().unwrap(), Some(far.clone()));
    assert_eq!(store.swap(&far.heard(), &after(&far)).unwrap(), Swapped::Stored);
    cluster.put("/tier0/adopt/record", [0xff, 0xfe]);
    store.adopt(&far).unwrap();
    assert_eq!(cluster.store("adopt").load().unwrap(), Some(far));
}

#[test]
fn record_of_another_format_is_refused() {
    let Some(cluster) = shared("record_of_another_format_is_refused") else { return };
    let mut store = cluster.store("format");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    let value = cluster.get("/tier0/format/record").unwrap();
    let (_, covered) = value.split_once(' ').unwrap();
    let covered = covered.replacen("\"format\":1", "\"format\":7", 1);
    let checksum: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(covered.as_bytes()).into();
    let checksum: String = checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    cluster.put("/tier0/format/record", format!("{checksum} {covered}"));
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::UnknownFormat { found: 7, .. }), "{error}");
    let mut operation_of_tomorrow = serde_json::to_value(summary(1)).unwrap();
    operation_of_tomorrow["content"] = operation_of_tomorrow.clone();
    operation_of_tomorrow["version"] = 2.into();
    store.append(&summary(1).into()).unwrap();
    let key = format!("/tier0/format/operations/{:020}", u64::MAX - 1);
    assert!(cluster.get(&key).is_some(), "where the first operation is");
    cluster.put(&key, operation_of_tomorrow.to_string());
    let error = store.operations(10, None).unwrap_err();
    assert!(matches!(error, StoreError::UnknownFormat { found: 2, .. }), "{error}");
}

#[test]
fn more_than_etcd_takes_is_invalid() {
    let Some(cluster) = shared("more_than_etcd_takes_is_invalid") else { return };
    let mut store = cluster.store("large");
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    for length in [1_700_000, 4_000_000] {
        let batch = entry(1, &"x".repeat(length)).into();
        let error = store.swap_with_journal(&first().heard(), &after(&first()), &batch);
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    let many = (0..100).fold(tier0_store::JournalBatch::default(), |batch, number| {
        batch.with_entry(entry(number, "one"))
    });
    let error = store.append(&many).unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert_eq!(store.load().unwrap(), Some(first()));
    assert_eq!(store.swap(&first().heard(), &after(&first())).unwrap(), Swapped::Stored);
}

/// Ten thousand are kept, and a gap in the revisions ends no list.
#[test]
fn past_records_are_forgotten_and_listed_over_gaps() {
    let Some(cluster) = shared("past_records_are_forgotten_and_listed_over_gaps") else { return };
    let at = |revision: u64| Record { revision: Revision::read(revision), ..first() };
    let mut donor = cluster.store("gap-donor");
    assert_eq!(donor.create(&at(3)).unwrap(), Swapped::Stored);
    let third = cluster.get("/tier0/gap-donor/record").unwrap();

    let mut store = cluster.store("gap");
    let key = |revision: u64| format!("/tier0/gap/history/{revision:020}");
    assert_eq!(store.create(&at(10_001)).unwrap(), Swapped::Stored);
    cluster.put(&key(2), &third);
    cluster.put(&key(3), &third);
    assert_eq!(store.swap(&at(10_001).heard(), &at(10_002)).unwrap(), Swapped::Stored);
    assert_eq!(cluster.get(&key(2)), None, "too old");
    let mut revisions = |limit: u32| -> Vec<u64> {
        let past = store.history(limit).unwrap();
        past.iter().map(|past| past.record.revision.number()).collect()
    };
    assert_eq!(revisions(10), [10_002, 10_001, 3]);
    assert_eq!(revisions(1_000), [10_002, 10_001, 3]);
    assert_eq!(revisions(2), [10_002, 10_001]);
    cluster.put(&key(10_000), &third);
    let error = store.history(3).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn settings_that_lead_nowhere_are_invalid() {
    let new = |endpoints: &[&str]| {
        Etcd::new(EtcdSettings {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            stack: "tier0".parse().unwrap(),
            credentials: None,
        })
    };
    for good in ["127.0.0.1:2379", "http://etcd-1.example:2379", "http://[::1]:2379/"] {
        new(&[good]).expect(good);
    }
    let bad = ["", "127.0.0.1", "https://127.0.0.1:2379", "http://a:2379/v3", "a:b", "u@a:2379"];
    for bad in bad {
        let error = new(&[bad]).expect_err(bad);
        assert!(matches!(error, StoreError::Invalid { .. }), "{bad}: {error}");
    }
    new(&[]).unwrap_err();
}

/// More than a page of operations; then one is accepted that is 10,000 places on, and those that are
/// too old go in idle moments, but for the one that still runs.
#[test]
fn operations_are_listed_in_pages_and_forgotten() {
    const COUNT: u32 = 230;
    let Some(cluster) = shared("operations_are_listed_in_pages_and_forgotten") else { return };
    let mut store = cluster.store("pages");
    let finished = |number: u32| OperationSummary {
        result: OperationResult::Succeeded,
        finished: Some(WallMillis(1_790_000_000_071)),
        ..summary(number)
    };
    for number in 1..=COUNT {
        let summary = if number == 5 { summary(number) } else { finished(number) };
        let batch = tier0_store::JournalBatch::from(summary).with_entry(entry(number, "an intent"));
        store.append(&batch).unwrap();
    }
    let ids = |limit: u32, before: Option<u32>, store: &mut Etcd| {
        let list = store.operations(limit, before.map(operation).as_ref()).unwrap();
        list.into_iter().map(|summary| summary.id).collect::<Vec<_>>()
    };
    let down = |from: u32, to: u32| (to..=from).rev().map(operation).collect::<Vec<_>>();
    assert_eq!(ids(500, None, &mut store), down(COUNT, 1));
    assert_eq!(ids(100, None, &mut store), down(COUNT, COUNT - 99), "a page");
    assert_eq!(ids(101, Some(200), &mut store), down(199, 99), "a page and one");
    // Another orchestrator, which knows nothing yet, goes on in the same order.
    let mut other = cluster.store("pages");
    other.append(&finished(COUNT + 1).into()).unwrap();
    store.append(&finished(COUNT + 2).into()).unwrap();
    assert_eq!(ids(3, None, &mut store), down(COUNT + 2, COUNT));

    let place = 10_010_u64;
    let newest = operation(99_999);
    let text = cluster.get(&format!("/tier0/pages/operations/{:020}", u64::MAX - 7)).unwrap();
    let text = text.replace(operation(7).as_str(), newest.as_str());
    cluster.put(&format!("/tier0/pages/operations/{:020}", u64::MAX - place), text);
    cluster.put(&format!("/tier0/pages/places/{newest}"), place.to_string());
    let at = WallMillis(1_790_000_000_000);
    assert_eq!(store.remember_key("old", &operation(1), at).unwrap(), None);
    let later = WallMillis(at.0 + KEY_LIFE_MILLIS);
    assert_eq!(store.remember_key("new", &operation(1), later).unwrap(), None);
    // It takes little time at once, and goes on the next time.
    for round in 0..100 {
        store.idle();
        let list = store.operations(500, Some(&operation(11))).unwrap();
        if list.len() == 1 && cluster.get("/tier0/pages/keys/old").is_none() {
            break;
        }
        assert!(round < 99, "{} are left", list.len());
        for _ in 0..50 {
            store.append(&finished(COUNT).into()).unwrap();
        }
    }
    assert_eq!(ids(500, Some(12), &mut store), [operation(11), operation(5)]);
    assert_eq!(store.operation(&operation(1)).unwrap(), None);
    assert_eq!(store.operation(&operation(5)).unwrap().unwrap().1.len(), 1);
    assert_eq!(store.operation(&operation(11)).unwrap().unwrap().1.len(), 1);
    assert_eq!(store.remember_key("new", &operation(2), later).unwrap(), Some(operation(1)));
    // A place that became free is never given again.
    store.append(&finished(1).into()).unwrap();
    assert_eq!(ids(2, None, &mut store), [operation(1), newest]);
}
