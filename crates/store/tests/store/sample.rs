//! Records, operations and entries to store. Left out: anything that means something.

use std::collections::BTreeMap;

use tier0_core::order::{Fact, Outcome};
use tier0_core::record::{
    Automatic, DatastoreKind, DatastoreRecord, Member, OperationKind, Protection, RECORD_FORMAT,
    Record,
};
use tier0_core::steps::{Step, StepKey};
use tier0_core::words::{Epoch, OperationId, Revision, SyncName, WallMillis};
use tier0_store::{JournalEvent, NewEntry, OperationResult, OperationSummary};

/// The lineage of all samples.
pub const LINEAGE: &str = "0192aaaa-0000-7000-8000-000000000001";

/// A first record.
pub fn first() -> Record {
    let name: SyncName = "db.region2#1".parse().unwrap();
    let member = Member {
        name: name.clone(),
        system: serde_json::from_str("\"7300000000000000001\"")
            .or_else(|_| serde_json::from_str("7300000000000000001"))
            .unwrap(),
        timeline: serde_json::from_str("1").unwrap(),
        floor: "0/3000148".parse().unwrap(),
    };
    let db = DatastoreRecord {
        kind: DatastoreKind::Postgres,
        takeover: BTreeMap::from([(name.node().clone(), member)]),
        protection: Protection::Protected,
        memberships: 1,
    };
    Record {
        format: RECORD_FORMAT,
        stack: "tier0".parse().unwrap(),
        lineage: LINEAGE.parse().unwrap(),
        epoch: Epoch::FIRST,
        revision: Revision::FIRST,
        writer: "region1".parse().unwrap(),
        datastores: BTreeMap::from([("db".parse().unwrap(), db)]),
        driver: "witness-1".to_owned(),
        held: BTreeMap::new(),
        automatic: Automatic::default(),
        claim: None,
        finished: None,
    }
}

/// The record after this one, with nothing else changed.
pub fn after(record: &Record) -> Record {
    Record { revision: record.revision.next(), ..record.clone() }
}

/// An operation id that is different for each number.
pub fn operation(number: u32) -> OperationId {
    format!("0192bbbb-0000-7000-8000-{number:012x}").parse().unwrap()
}

/// An entry of that operation.
pub fn entry(number: u32, sentence: &str) -> NewEntry {
    NewEntry {
        operation: operation(number),
        at: WallMillis(1_790_000_000_000),
        elapsed_micros: 1234,
        step: Some(StepKey {
            step: Step::Promote,
            datastore: Some("db".parse().unwrap()),
            route: None,
        }),
        node: Some("db.region2".parse().unwrap()),
        event: JournalEvent::Intent { sentence: sentence.to_owned() },
    }
}

/// One event of each kind.
pub fn events() -> Vec<JournalEvent> {
    let region = |name: &str| name.parse().unwrap();
    vec![
        JournalEvent::Accepted {
            kind: OperationKind::Switchover,
            from: region("region1"),
            target: region("region2"),
            requested_by: "somebody".to_owned(),
            reason: "a \"quoted\" reason\nof two lines".to_owned(),
        },
        JournalEvent::Intent { sentence: "promote db.region2".to_owned() },
        JournalEvent::Outcome {
            outcome: Outcome::Done { fact: Fact::Voted { epoch: u64::MAX, votes: 2, of: 3 } },
        },
        JournalEvent::Outcome { outcome: Outcome::Unknown { why: "no answer".to_owned() } },
        JournalEvent::PointOfNoReturn { epoch: Epoch::read(2), revision: Revision::read(7) },
        JournalEvent::Aborting { why: "the target is behind".to_owned() },
        JournalEvent::TakenOver { owner: "witness-2".to_owned() },
        JournalEvent::Note { row: "S4".to_owned(), sentence: "3 of 4 are ready".to_owned() },
        JournalEvent::Finished {
            result: OperationResult::SucceededWithExceptions,
            sentence: "redis did not follow".to_owned(),
        },
    ]
}

/// The operation with this number, running.
pub fn summary(number: u32) -> OperationSummary {
    OperationSummary {
        id: operation(number),
        kind: OperationKind::Switchover,
        from: "region1".parse().unwrap(),
        target: "region2".parse().unwrap(),
        requested_by: "somebody".to_owned(),
        reason: "a drill".to_owned(),
        accepted: WallMillis(1_790_000_000_000),
        finished: None,
        result: OperationResult::Running,
        epoch_before: Epoch::FIRST,
        epoch_after: None,
        total_micros: None,
        report: serde_json::json!({"steps": {"validation": {"ms": 1.5}}}),
    }
}
