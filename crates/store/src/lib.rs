//! The store of the authority record and of the journal.
//!
//! [`AuthorityStore`] is what a store must do: a compare-and-swap on one record, and a journal that
//! never changes the record's revision (R1, R5). [`Embedded`] does it with one SQLite file in one
//! process, [`Etcd`] on a cluster that several share; both pass one conformance suite. [`StoreHandle`]
//! lets asynchronous code use either.
//!
//! Left out: when to write what (the orchestrator), and what a record means (the core).

mod authority;
mod body;
mod embedded;
mod error;
mod etcd;
mod handle;
mod journal;
mod key;
mod operation;
mod successor;
mod version;

pub use authority::{AuthorityStore, KEY_LIFE_MILLIS, StoredRecord, Swapped};
pub use embedded::{Embedded, OpenError, last_record, set_aside};
pub use error::StoreError;
pub use etcd::{Etcd, EtcdCredentials, EtcdSettings};
pub use handle::StoreHandle;
pub use journal::{JournalBatch, JournalEntry, JournalEvent, NewEntry};
pub use operation::{OperationResult, OperationSummary};
