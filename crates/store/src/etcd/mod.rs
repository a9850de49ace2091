//! The store on an etcd cluster, for several orchestrators that share one record.
//!
//! - **One transaction per swap**: etcd compares what [`layout`] calls `heard`, and stores record,
//!   history and journal, or nothing. Who holds the record is for etcd's majority to say.
//! - **A lost answer is settled** by the next call, before it does anything else: [`fence`].
//! - **Plain HTTP and JSON**, etcd's own gateway, to one member at a time: [`cluster`].
//! - A call takes 3 s at most. Then it is [`StoreError::Access`] if nothing can have been stored,
//!   [`StoreError::Unknown`] if it may.
//!
//! Left out: watches, leases and locks of etcd (a lock's holder can be paused and go on, so safety
//! never comes from one), TLS, and the care of the cluster: its members, its compaction, its backups.

mod adopt;
mod cluster;
mod envelope;
mod fence;
mod history;
mod journal;
mod layout;
mod leader;
mod member;
mod message;
mod places;
mod record;
mod remember;
mod settings;
mod tidy;
mod write_id;

pub use settings::{EtcdCredentials, EtcdSettings};

use std::time::{SystemTime, UNIX_EPOCH};

use tier0_core::record::Record;
use tier0_core::words::{Heard, OperationId, WallMillis};

use crate::{
    AuthorityStore, JournalBatch, JournalEntry, OperationSummary, StoreError, StoredRecord,
    Swapped, key, successor,
};
use cluster::{Call, Cluster, Outcome};
use fence::Fence;
use layout::Layout;
use places::Places;
use tidy::Tidying;

/// The store on an etcd cluster. Its calls block, on a runtime of their own, so they must not be
/// made on a thread of another one: [`crate::StoreHandle`] sees to that.
#[derive(Debug)]
pub struct Etcd {
    cluster: Cluster,
    layout: Layout,
    fence: Fence,
    /// The newest record that was read or stored here; others may have swapped since.
    newest: Option<Record>,
    places: Places,
    tidying: Tidying,
}

impl Etcd {
    /// A store that uses this cluster. Nothing is sent yet.
    pub fn new(settings: EtcdSettings) -> Result<Etcd, StoreError> {
        Ok(Etcd {
            cluster: Cluster::new(&settings)?,
            layout: Layout::of(&settings.stack),
            fence: Fence::new(),
            newest: None,
            places: Places::default(),
            tidying: Tidying::default(),
        })
    }

    /// Read, when nothing of ours is under way any more.
    fn read<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Etcd, &mut Call) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut call = Call::begin(doing);
        self.settle(&mut call)?;
        work(self, &mut call)
    }

    /// Write, when nothing of ours is under way any more, and see whether something is afterwards.
    fn write<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Etcd, &mut Call) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut call = Call::begin(doing);
        self.settle(&mut call)?;
        self.tidying.note_write();
        let result = work(self, &mut call);
        if call.outcome == Outcome::Known {
            return result;
        }
        // Also if a later attempt was answered: the one that was not may still arrive.
        self.fence.needed();
        result.map_err(|error| match error {
            StoreError::Access { doing, source } => StoreError::Unknown { doing, source },
            other => StoreError::Unknown { doing, source: Box::new(other) },
        })
    }
}

impl AuthorityStore for Etcd {
    fn load(&mut self) -> Result<Option<Record>, StoreError> {
        self.read("load authority record from etcd", |store, call| store.read_record(call))
    }

    fn create(&mut self, record: &Record) -> Result<Swapped, StoreError> {
        self.write("create authority record in etcd", |store, call| {
            store.create_record(call, record)
        })
    }

    fn swap_with_journal(
        &mut self,
        expected: &Heard,
        next: &Record,
        batch: &JournalBatch,
    ) -> Result<Swapped, StoreError> {
        successor::check_names(expected, next)?;
        self.write("swap authority record in etcd", |store, call| {
            store.swap_record(call, expected, next, batch)
        })
    }

    fn history(&mut self, limit: u32) -> Result<Vec<StoredRecord>, StoreError> {
        self.read("read past records from etcd", |store, call| store.read_history(call, limit))
    }

    fn append(&mut self, batch: &JournalBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.write("write journal to etcd", |store, call| store.append_batch(call, batch))
    }

    fn operations(
        &mut self,
        limit: u32,
        before: Option<&OperationId>,
    ) -> Result<Vec<OperationSummary>, StoreError> {
        self.read("list operations from etcd", |store, call| {
            store.list_operations(call, limit, before)
        })
    }

    fn operation(
        &mut self,
        id: &OperationId,
    ) -> Result<Option<(OperationSummary, Vec<JournalEntry>)>, StoreError> {
        self.read("read operation from etcd", |store, call| store.read_operation(call, id))
    }

    fn remember_key(
        &mut self,
        key: &str,
        operation: &OperationId,
        at: WallMillis,
    ) -> Result<Option<OperationId>, StoreError> {
        key::check(key)?;
        self.write("remember idempotency key in etcd", |store, call| {
            store.remember(call, key, operation, at)
        })
    }

    fn draw_near(&mut self) -> Result<(), StoreError> {
        self.lead_from_first()
    }

    fn idle(&mut self) {
        if let Err(error) = self.tidy() {
            tracing::debug!(%error, "cannot tidy up in etcd, it can wait");
        }
    }
}

/// Milliseconds since 1970, by this machine's clock: for people and for idempotency keys.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
