//! The store in one process: one SQLite file, one connection, one writer.
//!
//! - **WAL with `synchronous=FULL`**: a commit is one fsync, where a rollback journal needs four;
//!   two commits lie in the window in which clients wait. The price is that SQLite silently drops
//!   the tail of a WAL that it cannot read, which looks like an older record; the
//!   [`marker`](self::marker) catches that.
//! - **`locking_mode=EXCLUSIVE`** beside the lock file: no other process, not even the `sqlite3`
//!   shell, can checkpoint the WAL under us, and there is no shared-memory file.
//! - A commit that fails poisons the store: after a failed fsync what can be read need not be on
//!   the disk.
//!
//! Left out: copies on other machines (a lost store is a matter of R2 and `tier0 authority`), and
//! NFS, which is refused.

mod directory;
mod file;
mod history;
mod journal;
mod keys;
mod last;
mod marker;
mod open;
mod record;
mod set_aside;

pub use last::last_record;
pub use open::OpenError;
pub use set_aside::set_aside;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tier0_core::record::Record;
use tier0_core::words::{Heard, OperationId, WallMillis};

use crate::{
    AuthorityStore, JournalBatch, JournalEntry, OperationSummary, StoreError, StoredRecord,
    Swapped, key, successor,
};
use directory::DirectoryLock;
use marker::Marker;

/// So many commits may lie in the WAL before an idle moment is used to move them into the file.
const TIDY_AFTER_COMMITS: u32 = 50;

/// The store in one process.
#[derive(Debug)]
pub struct Embedded {
    // Before the lock: fields are dropped in this order, and the lock must outlive the connection.
    connection: Connection,
    marker: Option<Marker>,
    lock: DirectoryLock,
    health: Health,
    commits_in_wal: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    Poisoned,
}

impl Embedded {
    /// Do `work` in one transaction and make it durable. `Err` from `work` rolls back.
    fn write<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_health()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::access(doing))?;
        let value = work(&transaction)?;
        if let Err(error) = transaction.commit() {
            self.health = Health::Poisoned;
            return Err(StoreError::Unknown { doing, source: Box::new(error) });
        }
        self.commits_in_wal = self.commits_in_wal.saturating_add(1);
        Ok(value)
    }

    fn check_health(&self) -> Result<(), StoreError> {
        match self.health {
            Health::Sound => Ok(()),
            Health::Poisoned => Err(StoreError::Poisoned),
        }
    }

    /// After the commit, before the answer. The record is durable either way, so trouble here
    /// costs the guard against a store that goes back, not the write.
    fn mark(&mut self, heard: &Heard) {
        let marked = match &mut self.marker {
            Some(marker) => marker.advance(heard),
            None => Marker::begin(self.lock.directory(), heard).map(|new| self.marker = Some(new)),
        };
        if let Err(error) = marked {
            tracing::warn!(%heard, %error, "cannot note the newest record beside the store");
        }
    }
}

impl AuthorityStore for Embedded {
    fn load(&mut self) -> Result<Option<Record>, StoreError> {
        self.check_health()?;
        record::load(&self.connection)
    }

    fn create(&mut self, record: &Record) -> Result<Swapped, StoreError> {
        let swapped = self.write("create authority record", |transaction| {
            if let Some(current) = record::load(transaction)? {
                return Ok(Swapped::Lost { current: Box::new(current) });
            }
            record::store(transaction, record)?;
            Ok(Swapped::Stored)
        })?;
        if swapped == Swapped::Stored {
            self.mark(&record.heard());
        }
        Ok(swapped)
    }

    fn swap_with_journal(
        &mut self,
        expected: &Heard,
        next: &Record,
        batch: &JournalBatch,
    ) -> Result<Swapped, StoreError> {
        successor::check_names(expected, next)?;
        let swapped = self.write("swap authority record", |transaction| {
            let current = record::load(transaction)?.ok_or(StoreError::NoRecord)?;
            if current.heard() != *expected {
                return Ok(Swapped::Lost { current: Box::new(current) });
            }
            successor::check_successor(&current, next)?;
            record::store(transaction, next)?;
            journal::write(transaction, batch)?;
            Ok(Swapped::Stored)
        })?;
        if swapped == Swapped::Stored {
            self.mark(&next.heard());
        }
        Ok(swapped)
    }

    fn history(&mut self, limit: u32) -> Result<Vec<StoredRecord>, StoreError> {
        self.check_health()?;
        history::newest(&self.connection, limit)
    }

    fn append(&mut self, batch: &JournalBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return self.check_health();
        }
        self.write("write journal", |transaction| journal::write(transaction, batch))
    }

    fn operations(
        &mut self,
        limit: u32,
        before: Option<&OperationId>,
    ) -> Result<Vec<OperationSummary>, StoreError> {
        self.check_health()?;
        journal::operations(&self.connection, limit, before)
    }

    fn operation(
        &mut self,
        id: &OperationId,
    ) -> Result<Option<(OperationSummary, Vec<JournalEntry>)>, StoreError> {
        self.check_health()?;
        journal::operation(&self.connection, id)
    }

    fn remember_key(
        &mut self,
        key: &str,
        operation: &OperationId,
        at: WallMillis,
    ) -> Result<Option<OperationId>, StoreError> {
        key::check(key)?;
        self.write("remember idempotency key", |transaction| {
            keys::remember(transaction, key, operation, at)
        })
    }

    fn idle(&mut self) {
        if self.commits_in_wal < TIDY_AFTER_COMMITS || self.health == Health::Poisoned {
            return;
        }
        match file::checkpoint(&self.connection) {
            Ok(()) => self.commits_in_wal = 0,
            Err(error) => tracing::warn!(%error, "cannot move the WAL into the store's file"),
        }
    }
}
