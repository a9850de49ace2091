//! From the core's notes to the store's journal.
//!
//! Notes of one turn of the loop go into one transaction. The intent of R5 is the claim in the
//! record itself, stored by compare-and-swap before the first effect; the journal follows it.

use std::time::Duration;

use tier0_core::orchestrator::{
    Activity, Ended, NearMiss, Note, Noted, Now, Orchestrator, Request, Seats,
};
use tier0_core::order::Refusal;
use tier0_core::record::{OperationKind, Record};
use tier0_core::words::{Epoch, OperationId, Region, Revision};
use tier0_store::{
    JournalBatch, JournalEvent, NewEntry, OperationResult, OperationSummary, StoreError,
    StoreHandle,
};
use tier0_wire::OperationBody;
use tokio::sync::mpsc;

use crate::report;

/// Collects what one turn of the loop has to say.
pub struct Journal {
    writer: Writer,
    batches: Vec<JournalBatch>,
    epochs: std::collections::BTreeMap<OperationId, Epoch>,
}

impl Journal {
    /// A journal in a store; one that orchestrators share may be away for a while.
    pub fn new(store: StoreHandle, seats: &Seats) -> Self {
        let writer = match seats.is_shared() {
            false => Writer::AtOnce(store),
            true => {
                let (writer, queue) = mpsc::unbounded_channel();
                tokio::spawn(write_in_order(store, queue));
                Writer::InOrder(writer)
            }
        };
        Journal { writer, batches: Vec::new(), epochs: Default::default() }
    }

    /// A line.
    pub fn note(&mut self, note: Note) {
        let event = match note.what {
            Noted::Accepted { .. } => return,
            Noted::Begins { sentence } => JournalEvent::Intent { sentence },
            Noted::Ends { sentence } => {
                let row = note.key.as_ref().map(|key| key.step.id()).unwrap_or("operation");
                JournalEvent::Note { row: row.to_owned(), sentence }
            }
            Noted::PointOfNoReturn { epoch } => {
                JournalEvent::PointOfNoReturn { epoch, revision: Revision::FIRST }
            }
            Noted::Remark { sentence } => JournalEvent::Note { row: "remark".to_owned(), sentence },
            Noted::Ended { .. } => return,
        };
        let entry = NewEntry {
            operation: note.operation,
            at: note.wall,
            elapsed_micros: note.elapsed_micros,
            step: note.key,
            node: note.node,
            event,
        };
        match self.batches.last_mut() {
            Some(batch) if batch.summary.is_none() => batch.entries.push(entry),
            Some(_) | None => self.batches.push(JournalBatch::from(entry)),
        }
    }

    /// The operation as it stands now.
    pub fn summary(
        &mut self,
        core: &Orchestrator,
        activity: &Activity,
        ended: Option<&Ended>,
        now: &Now,
    ) {
        let Some(record) = core.record() else { return };
        let epoch_before = *self.epochs.entry(activity.id.clone()).or_insert(record.epoch);
        let body = report::body(activity, ended, Some(record), now);
        let elapsed = now.moment.since(activity.accepted).as_micros() as u64;
        let summary = OperationSummary {
            id: activity.id.clone(),
            kind: activity.kind,
            from: activity.from.clone(),
            target: activity.target.clone(),
            requested_by: activity.by.clone(),
            reason: activity.reason.clone(),
            accepted: activity.accepted_wall,
            finished: ended.map(|_| now.wall),
            result: ended.map_or(OperationResult::Running, result),
            epoch_before,
            epoch_after: ended.map(|_| record.epoch),
            total_micros: ended.map(|_| elapsed),
            report: serde_json::to_value(&body).unwrap_or_default(),
        };
        let event = match ended {
            None => JournalEvent::Accepted {
                kind: activity.kind,
                from: activity.from.clone(),
                target: activity.target.clone(),
                requested_by: activity.by.clone(),
                reason: activity.reason.clone(),
            },
            Some(ended) => {
                self.epochs.remove(&activity.id);
                JournalEvent::Finished { result: result(ended), sentence: report::sentence(ended) }
            }
        };
        let entry = NewEntry {
            operation: activity.id.clone(),
            at: now.wall,
            elapsed_micros: elapsed,
            step: None,
            node: activity.node.clone(),
            event,
        };
        self.batches.push(JournalBatch::from(summary).with_entry(entry));
    }

    /// A request that never became an operation.
    pub fn refused(
        &mut self,
        core: &Orchestrator,
        request: &Request,
        refusal: &Refusal,
        now: &Now,
    ) {
        let Some(record) = core.record() else { return };
        let (kind, target) = report::asked(&request.what, record);
        let body = report::refused_body(request, refusal, record, now);
        self.nothing_done(kind, request.id.clone(), target, &body, record, now);
    }

    /// A move of the writer that was held back.
    pub fn held_back(&mut self, core: &Orchestrator, near_miss: &NearMiss, now: &Now) {
        let Some(record) = core.record() else { return };
        let body = report::near_miss_body(near_miss, record, now);
        let (id, target) = (near_miss.id.clone(), near_miss.target.clone());
        self.nothing_done(OperationKind::Failover, id, target, &body, record, now);
    }

    fn nothing_done(
        &mut self,
        kind: OperationKind,
        id: OperationId,
        target: Region,
        body: &OperationBody,
        record: &Record,
        now: &Now,
    ) {
        let summary = OperationSummary {
            id,
            kind,
            from: record.writer.clone(),
            target,
            requested_by: body.requested_by.clone(),
            reason: body.reason.clone(),
            accepted: now.wall,
            finished: Some(now.wall),
            result: OperationResult::Refused,
            epoch_before: record.epoch,
            epoch_after: Some(record.epoch),
            total_micros: Some(0),
            report: serde_json::to_value(body).unwrap_or_default(),
        };
        self.batches.push(JournalBatch::from(summary));
    }

    /// Hand everything to the store, in order; nobody waits.
    pub fn flush(&mut self) {
        for batch in self.batches.drain(..) {
            match &self.writer {
                Writer::AtOnce(store) => {
                    let store = store.clone();
                    tokio::spawn(async move {
                        if let Err(error) = store.append(batch).await {
                            lost(error);
                        }
                    });
                }
                // The writer ends only with the process.
                Writer::InOrder(writer) => drop(writer.send(batch)),
            }
        }
    }
}

/// How batches get into the store.
enum Writer {
    /// Each goes into the store's own queue as it comes: whoever reads after it finds it.
    AtOnce(StoreHandle),
    /// Each waits for the one before it, which may be tried for long.
    InOrder(mpsc::UnboundedSender<JournalBatch>),
}

fn lost(error: StoreError) {
    let error = format!("{:#}", anyhow::Error::from(error));
    tracing::error!(error, "a line of the journal is lost");
}

/// Between two attempts at a store that is away.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// So many batches wait for a store that is away; then the oldest is given up, and said to be.
const WAIT_MOST: usize = 1_000;

/// Write what comes. A store that is away for a while (a cluster without a majority) gets it when it
/// is back; a line may then be there twice, if it is not known whether the first attempt arrived.
async fn write_in_order(store: StoreHandle, mut queue: mpsc::UnboundedReceiver<JournalBatch>) {
    while let Some(batch) = queue.recv().await {
        loop {
            match store.append(batch.clone()).await {
                Ok(()) => break,
                Err(StoreError::Access { .. } | StoreError::Unknown { .. })
                    if queue.len() < WAIT_MOST =>
                {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(error) => {
                    lost(error);
                    break;
                }
            }
        }
    }
}

fn result(ended: &Ended) -> OperationResult {
    match ended {
        Ended::Succeeded => OperationResult::Succeeded,
        Ended::WithExceptions { .. } => OperationResult::SucceededWithExceptions,
        Ended::Refused { .. } => OperationResult::Refused,
        Ended::Aborted { .. } => OperationResult::Aborted,
        Ended::Failed { .. } => OperationResult::Failed,
        Ended::Unknown { .. } => OperationResult::Unknown,
    }
}
