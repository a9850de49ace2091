//! What every store of the authority record must do, whatever it is built on.

use tier0_core::record::Record;
use tier0_core::words::{Heard, OperationId, WallMillis};

use crate::{JournalBatch, JournalEntry, OperationSummary, StoreError};

/// How long an idempotency key is remembered, in milliseconds: 24 hours.
pub const KEY_LIFE_MILLIS: i64 = 24 * 3_600_000;

/// So many past records are kept.
pub(crate) const RECORDS_KEPT: u32 = 10_000;

/// So many operations are kept; a running one is never forgotten.
pub(crate) const OPERATIONS_KEPT: u32 = 10_000;

/// What came of a compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Swapped {
    /// The new record is stored, and survives a crash and a loss of power.
    Stored,
    /// Another record was there. Nothing was stored.
    Lost {
        /// The record that was there.
        current: Box<Record>,
    },
}

/// A record as it once was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// When it was stored, by the store's clock.
    pub at: WallMillis,
    /// The record.
    pub record: Record,
}

/// A store of the authority record and of the journal.
///
/// Calls block for as long as a durable write takes, so asynchronous code goes through
/// [`crate::StoreHandle`]. Whatever a call has acknowledged survives the end of the process and
/// loss of power.
pub trait AuthorityStore: Send {
    /// The record, checked against its checksum. `None` only in a store that never held one.
    fn load(&mut self) -> Result<Option<Record>, StoreError>;

    /// Store the first record. [`Swapped::Lost`] if there is one already.
    fn create(&mut self, record: &Record) -> Result<Swapped, StoreError>;

    /// Store `next` if the record is still the one that `expected` names, and the batch with it:
    /// both or neither (R5: the intent goes with the claim).
    ///
    /// `next` must be of the same stack and lineage, exactly one revision on, and of the same epoch
    /// or the one after; where the writer differs it must be the one after. Anything else is
    /// [`StoreError::NotASuccessor`], whoever holds the record.
    fn swap_with_journal(
        &mut self,
        expected: &Heard,
        next: &Record,
        batch: &JournalBatch,
    ) -> Result<Swapped, StoreError>;

    /// [`AuthorityStore::swap_with_journal`] with nothing for the journal.
    fn swap(&mut self, expected: &Heard, next: &Record) -> Result<Swapped, StoreError> {
        self.swap_with_journal(expected, next, &JournalBatch::default())
    }

    /// Past records, the newest first, the current one among them. The store keeps the last
    /// 10,000.
    fn history(&mut self, limit: u32) -> Result<Vec<StoredRecord>, StoreError>;

    /// Write to the journal, all of the batch or nothing. The record and its revision stay.
    fn append(&mut self, batch: &JournalBatch) -> Result<(), StoreError>;

    /// Operations, the one accepted last first; with `before`, only those accepted before that
    /// one, and none where it is not known. The store keeps the last 10,000 that have finished.
    fn operations(
        &mut self,
        limit: u32,
        before: Option<&OperationId>,
    ) -> Result<Vec<OperationSummary>, StoreError>;

    /// One operation with its entries in the order in which they were written.
    fn operation(
        &mut self,
        id: &OperationId,
    ) -> Result<Option<(OperationSummary, Vec<JournalEntry>)>, StoreError>;

    /// Remember that this idempotency key started this operation. If the key is known already
    /// nothing changes, and the answer is the operation that it started. Keys are forgotten after
    /// [`KEY_LIFE_MILLIS`], by the caller's wall clock `at`; a clock that jumps forward only
    /// forgets early.
    fn remember_key(
        &mut self,
        key: &str,
        operation: &OperationId,
        at: WallMillis,
    ) -> Result<Option<OperationId>, StoreError>;

    /// Have whatever decides for the store be near to this process, where there is a choice: what is
    /// far away may be lost with the writer's region.
    fn draw_near(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Nothing was asked for a while: a good moment for work that would delay a call.
    fn idle(&mut self) {}
}
