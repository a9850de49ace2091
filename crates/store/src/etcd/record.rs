//! The authority record: read, made, swapped.

use tier0_core::record::Record;
use tier0_core::words::{Heard, WallMillis};

use super::cluster::{Call, Effect};
use super::journal::Batch;
use super::layout::heard_text;
use super::message::{Answer, Txn};
use super::write_id::WriteId;
use super::{Etcd, envelope, now};
use crate::authority::RECORDS_KEPT;
use crate::{JournalBatch, StoreError, Swapped, successor};

/// A record on its way into the store.
struct Sealed<'a> {
    record: &'a Record,
    value: String,
    write: WriteId,
}

impl<'a> Sealed<'a> {
    fn new(record: &'a Record) -> Result<Sealed<'a>, StoreError> {
        let write = WriteId::new();
        let value = envelope::seal(record, WallMillis(now()), &write)?;
        Ok(Sealed { record, value, write })
    }
}

impl Etcd {
    pub(super) fn read_record(&mut self, call: &mut Call) -> Result<Option<Record>, StoreError> {
        let mut txn = Txn::default();
        for key in [self.layout.record(), self.layout.heard(), self.layout.fence()] {
            txn.read(&key);
        }
        // Without a word about it a read goes through a majority: it is as new as can be.
        let answer = self.cluster.txn(call, &txn, Effect::Harmless)?;
        self.fence.learn(&self.layout, &answer);
        let record = self.record_in(&answer)?;
        self.newest.clone_from(&record);
        Ok(record)
    }

    /// The record in an answer that has both of its keys.
    fn record_in(&self, answer: &Answer) -> Result<Option<Record>, StoreError> {
        let damaged = |what: &str| Err(StoreError::Damaged { what: what.to_owned() });
        match (answer.of(&self.layout.record()), answer.of(&self.layout.heard())) {
            (None, None) => Ok(None),
            (None, Some(_)) => damaged("etcd says which record there is, and does not have it"),
            (Some(_), None) => damaged("etcd has a record, and does not say which"),
            (Some(value), Some(heard)) => {
                let record = envelope::open(&value.value)?.record;
                if heard.value != heard_text(&record.heard()) {
                    return damaged("etcd has another record than it says");
                }
                Ok(Some(record))
            }
        }
    }

    fn put_record(&self, txn: &mut Txn, sealed: &Sealed<'_>) {
        txn.put(&self.layout.record(), &sealed.value);
        txn.put(&self.layout.heard(), &heard_text(&sealed.record.heard()));
        let revision = sealed.record.revision;
        txn.put(&self.layout.history_of(revision), &sealed.value);
        let oldest = (revision.number() + 1).saturating_sub(u64::from(RECORDS_KEPT));
        if oldest > 0 {
            txn.delete_range(&self.layout.history(0), &self.layout.history(oldest));
        }
        txn.else_read(&self.layout.record());
        txn.else_read(&self.layout.heard());
        txn.else_read(&self.layout.history_of(revision));
    }

    /// Whether this very write was carried out, as an answer to a later attempt shows: it stays
    /// among the past records also when somebody has swapped since.
    fn was_stored(&self, answer: &Answer, sealed: &Sealed<'_>) -> bool {
        let past = answer.of(&self.layout.history_of(sealed.record.revision));
        past.is_some_and(|past| past.value == sealed.value)
    }

    pub(super) fn create_record(
        &mut self,
        call: &mut Call,
        record: &Record,
    ) -> Result<Swapped, StoreError> {
        let sealed = Sealed::new(record)?;
        loop {
            let mut txn = Txn::default();
            txn.when_absent(&self.layout.record());
            txn.when_absent(&self.layout.heard());
            self.fence.guard(&self.layout, &mut txn);
            self.put_record(&mut txn, &sealed);
            let answer = self.cluster.txn(call, &txn, Effect::Write)?;
            if answer.held || self.was_stored(&answer, &sealed) {
                self.newest = Some(record.clone());
                return Ok(Swapped::Stored);
            }
            if let Some(current) = self.record_in(&answer)? {
                return Ok(Swapped::Lost { current: Box::new(current) });
            }
            self.fence.learn(&self.layout, &answer);
        }
    }

    pub(super) fn swap_record(
        &mut self,
        call: &mut Call,
        expected: &Heard,
        next: &Record,
        batch: &JournalBatch,
    ) -> Result<Swapped, StoreError> {
        // A lineage, epoch and revision name one record, so one that was read before will do.
        if self.newest.as_ref().is_none_or(|newest| newest.heard() != *expected) {
            self.read_record(call)?;
        }
        let Some(newest) = &self.newest else { return Err(StoreError::NoRecord) };
        if newest.heard() != *expected {
            return Ok(Swapped::Lost { current: Box::new(newest.clone()) });
        }
        successor::check_successor(newest, next)?;
        let sealed = Sealed::new(next)?;
        let batch = Batch::new(&self.layout, batch, &sealed.write)?;
        self.prepare(call, &batch)?;
        loop {
            let mut txn = Txn::default();
            txn.when_value(&self.layout.heard(), &heard_text(expected));
            self.fence.guard(&self.layout, &mut txn);
            self.put_record(&mut txn, &sealed);
            batch.put(&self.layout, &self.places, &mut txn);
            let answer = self.cluster.txn(call, &txn, Effect::Write)?;
            if answer.held {
                batch.stored(&mut self.places);
                self.newest = Some(next.clone());
                return Ok(Swapped::Stored);
            }
            self.fence.learn(&self.layout, &answer);
            batch.learn(&self.layout, &answer, &mut self.places)?;
            if self.was_stored(&answer, &sealed) {
                self.newest = Some(next.clone());
                return Ok(Swapped::Stored);
            }
            let Some(current) = self.record_in(&answer)? else { return Err(StoreError::NoRecord) };
            if current.heard() != *expected {
                self.newest = Some(current.clone());
                return Ok(Swapped::Lost { current: Box::new(current) });
            }
            // The fence was moved, or the operation's place was another: once more with what is.
        }
    }
}
