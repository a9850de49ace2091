//! Operations and their entries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tier0_core::words::OperationId;

use super::cluster::{Call, Effect};
use super::layout::end_of;
use super::message::{Answer, Order, Part, Range, Stored, Txn};
use super::places::{self, Places};
use super::write_id::WriteId;
use super::{Etcd, Layout};
use crate::version::{from_text, to_text};
use crate::{JournalBatch, JournalEntry, NewEntry, OperationSummary, StoreError};

/// So many operations are read at once: their reports may be long.
const PAGE: u32 = 100;

/// So many entries fit into one write, because their sequence is made of the write's revision in
/// etcd and their place in it.
const ENTRIES_MOST: usize = 1_024;

/// So many operations may one write have entries of: etcd allows 128 parts of a transaction.
const OPERATIONS_MOST: usize = 64;

/// The entries of one operation in one write are one key, so that they cost one part of the
/// transaction.
#[derive(Serialize, Deserialize)]
struct Placed<E> {
    /// In the write.
    place: u32,
    entry: E,
}

/// A journal batch on its way into the store.
pub(super) struct Batch {
    operation: Option<(OperationId, String)>,
    entries: Vec<(String, String)>,
}

impl Batch {
    pub(super) fn new(
        layout: &Layout,
        batch: &JournalBatch,
        write: &WriteId,
    ) -> Result<Batch, StoreError> {
        let invalid = |problem| Err(StoreError::Invalid { what: "journal batch", problem });
        if batch.entries.len() > ENTRIES_MOST {
            return invalid(format!("{} entries, {ENTRIES_MOST} fit", batch.entries.len()));
        }
        let mut by_operation = BTreeMap::<&OperationId, Vec<Placed<&NewEntry>>>::new();
        for (place, entry) in (0..).zip(&batch.entries) {
            by_operation.entry(&entry.operation).or_default().push(Placed { place, entry });
        }
        if by_operation.len() > OPERATIONS_MOST {
            let problem = format!("of {} operations, {OPERATIONS_MOST} fit", by_operation.len());
            return invalid(problem);
        }
        let entries = by_operation.into_iter().map(|(operation, entries)| {
            let key = format!("{}{write}", layout.journal(operation));
            Ok((key, to_text("journal entry", &entries)?))
        });
        let operation = batch.summary.as_ref().map(|summary| {
            Ok::<_, StoreError>((summary.id.clone(), to_text("operation", summary)?))
        });
        Ok(Batch {
            operation: operation.transpose()?,
            entries: entries.collect::<Result<_, StoreError>>()?,
        })
    }

    /// Add it to a transaction.
    pub(super) fn put(&self, layout: &Layout, places: &Places, txn: &mut Txn) {
        if let Some((id, text)) = &self.operation {
            places.put(layout, id, text, txn);
        }
        for (key, text) in &self.entries {
            // Its name is this write's alone: it is there if an attempt without answer was
            // carried out.
            txn.when_absent(key);
            txn.put(key, text);
            txn.else_read(key);
        }
    }

    /// The transaction was carried out, by the attempt that was answered.
    pub(super) fn stored(&self, places: &mut Places) {
        if let Some((id, _)) = &self.operation {
            places.stored(id);
        }
    }

    /// The transaction was not carried out: take note of what is there instead.
    pub(super) fn learn(
        &self,
        layout: &Layout,
        answer: &Answer,
        places: &mut Places,
    ) -> Result<(), StoreError> {
        match &self.operation {
            Some((id, _)) => places.learn(layout, id, answer),
            None => Ok(()),
        }
    }

    /// Whether an earlier attempt was carried out, as the answer to a later one shows. Without
    /// entries nothing shows it, and nothing is the worse for storing the operation again.
    fn was_stored(&self, answer: &Answer) -> bool {
        self.entries.iter().any(|(key, _)| answer.of(key).is_some())
    }
}

impl Etcd {
    /// What must be known before a batch can be written.
    pub(super) fn prepare(&mut self, call: &mut Call, batch: &Batch) -> Result<(), StoreError> {
        match &batch.operation {
            Some((id, _)) if self.places.are_unknown() => {
                let txn = Places::read(&self.layout, id);
                let answer = self.cluster.txn(call, &txn, Effect::Harmless)?;
                self.places.learn(&self.layout, id, &answer)
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn append_batch(
        &mut self,
        call: &mut Call,
        batch: &JournalBatch,
    ) -> Result<(), StoreError> {
        let batch = Batch::new(&self.layout, batch, &WriteId::new())?;
        self.prepare(call, &batch)?;
        loop {
            let mut txn = Txn::default();
            self.fence.guard(&self.layout, &mut txn);
            batch.put(&self.layout, &self.places, &mut txn);
            let answer = self.cluster.txn(call, &txn, Effect::Write)?;
            if answer.held {
                batch.stored(&mut self.places);
                return Ok(());
            }
            self.fence.learn(&self.layout, &answer);
            batch.learn(&self.layout, &answer, &mut self.places)?;
            if batch.was_stored(&answer) {
                return Ok(());
            }
        }
    }

    pub(super) fn list_operations(
        &mut self,
        call: &mut Call,
        limit: u32,
        before: Option<&OperationId>,
    ) -> Result<Vec<OperationSummary>, StoreError> {
        let mut from = match before {
            None => self.layout.operations(),
            Some(id) => match self.place(call, id)? {
                None => return Ok(Vec::new()),
                Some(place) => self.layout.operation(place - 1),
            },
        };
        let mut operations = Vec::new();
        loop {
            let left = limit.saturating_sub(u32::try_from(operations.len()).unwrap_or(limit));
            if left == 0 {
                return Ok(operations);
            }
            let range = Range {
                from,
                to: end_of(&self.layout.operations()),
                limit: left.min(PAGE),
                order: Order::Ascending,
                part: Part::Whole,
            };
            let answer = self.cluster.range(call, &range)?;
            for stored in &answer.read {
                operations.push(from_text("operation", &stored.value)?);
            }
            match answer.read.last() {
                Some(last) if answer.read.len() >= range.limit as usize => {
                    from = format!("{}\0", last.key);
                }
                Some(_) | None => return Ok(operations),
            }
        }
    }

    fn place(&mut self, call: &mut Call, id: &OperationId) -> Result<Option<u64>, StoreError> {
        let key = self.layout.place(id);
        let mut txn = Txn::default();
        txn.read(&key);
        let answer = self.cluster.txn(call, &txn, Effect::Harmless)?;
        answer.of(&key).map(|stored| places::number(&stored.value)).transpose()
    }

    pub(super) fn read_operation(
        &mut self,
        call: &mut Call,
        id: &OperationId,
    ) -> Result<Option<(OperationSummary, Vec<JournalEntry>)>, StoreError> {
        let Some(place) = self.place(call, id)? else { return Ok(None) };
        let (key, prefix) = (self.layout.operation(place), self.layout.journal(id));
        let mut txn = Txn::default();
        txn.read(&key);
        txn.read_range(&Range {
            from: prefix.clone(),
            to: end_of(&prefix),
            limit: 0,
            order: Order::Ascending,
            part: Part::Whole,
        });
        let answer = self.cluster.txn(call, &txn, Effect::Harmless)?;
        // It may have been forgotten between the two.
        let Some(summary) = answer.of(&key) else { return Ok(None) };
        let mut entries = Vec::new();
        for stored in answer.read.iter().filter(|stored| stored.key.starts_with(&prefix)) {
            entries.extend(entries_of(stored)?);
        }
        entries.sort_by_key(|entry| entry.sequence);
        Ok(Some((from_text("operation", &summary.value)?, entries)))
    }
}

fn entries_of(stored: &Stored) -> Result<Vec<JournalEntry>, StoreError> {
    let placed: Vec<Placed<NewEntry>> = from_text("journal entry", &stored.value)?;
    let first = stored.created.saturating_mul(ENTRIES_MOST as u64);
    Ok(placed
        .into_iter()
        .map(|placed| JournalEntry {
            sequence: first.saturating_add(u64::from(placed.place)),
            new: placed.entry,
        })
        .collect())
}
