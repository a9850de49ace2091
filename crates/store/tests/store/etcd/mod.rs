//! The store on real etcd clusters of three members, each test on a stack of its own.
//!
//! Tests that harm no member share a cluster. Where etcd is not installed they are SKIPPED.

mod authentication;
mod cluster;
mod contents;
#[path = "../../../../lab/src/skipped.rs"]
mod counted;
mod late;
mod members;
mod proxy;
mod sharing;
mod speed;

use tier0_core::record::Record;
use tier0_store::{AuthorityStore, Etcd, JournalBatch, StoreError, Swapped};

use crate::sample::after;
use counted::skipped;

/// The record after this one, stored for sure: after an unknown outcome by looking, as R4 has it.
/// Says how often it had to look.
fn swap_surely(store: &mut Etcd, record: &Record, batch: &JournalBatch) -> (Record, u32) {
    let next = after(record);
    for looked in 0..20 {
        match store.swap_with_journal(&record.heard(), &next, batch) {
            Ok(Swapped::Stored) => return (next, looked),
            Ok(Swapped::Lost { current }) => panic!("somebody else stored {}", current.heard()),
            Err(StoreError::Unknown { .. }) => match loaded(store) {
                found if found == next => return (next, looked + 1),
                found => assert_eq!(&found, record),
            },
            Err(StoreError::Access { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("not stored in 20 attempts");
}

/// The record, however long the cluster takes.
fn loaded(store: &mut Etcd) -> Record {
    for _ in 0..20 {
        match store.load() {
            Ok(record) => return record.unwrap(),
            Err(StoreError::Access { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("not loaded in 20 attempts");
}

/// An error and what it is caused by, as an operator sees it.
fn chain(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}
