//! What is forgotten, in idle moments and a little at a time: operations that finished long ago, and
//! idempotency keys whose life is over. Past records are forgotten by the swap itself.
//!
//! Nothing here waits for a fence: each deletion compares what it deletes with what was read, so it
//! does no harm whenever it arrives.

use std::time::Duration;

use tier0_core::words::WallMillis;

use super::Etcd;
use super::cluster::{Call, Effect};
use super::layout::end_of;
use super::message::{Order, Part, Range, Stored, Txn};
use super::places;
use super::remember::Remembered;
use crate::authority::OPERATIONS_KEPT;
use crate::version::from_text;
use crate::{OperationResult, OperationSummary, StoreError};

/// So many writes must have been made before it is worth asking what can be forgotten.
const AFTER_WRITES: u32 = 50;

/// So long may it take: a call may be made meanwhile, and waits.
const LIMIT: Duration = Duration::from_millis(500);

/// So many keys are looked at in one go.
const PAGE: u32 = 50;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    writes: u32,
    /// The newest moment that a caller named.
    clock: Option<WallMillis>,
    /// Where to go on among the idempotency keys.
    next_key: Option<String>,
}

impl Tidying {
    pub(super) fn note_write(&mut self) {
        self.writes = self.writes.saturating_add(1);
    }

    pub(super) fn note_clock(&mut self, at: WallMillis) {
        if self.clock.is_none_or(|clock| clock.0 < at.0) {
            self.clock = Some(at);
        }
    }
}

impl Etcd {
    pub(super) fn tidy(&mut self) -> Result<(), StoreError> {
        if self.tidying.writes < AFTER_WRITES {
            return Ok(());
        }
        self.tidying.writes = 0;
        let mut call = Call::within("tidy up in etcd", LIMIT);
        self.forget_operations(&mut call)?;
        self.forget_keys(&mut call)
    }

    fn forget_operations(&mut self, call: &mut Call) -> Result<(), StoreError> {
        let answer = self.cluster.range(call, &places::highest(&self.layout))?;
        let highest = answer.read.iter().find_map(|stored| self.layout.place_of(&stored.key));
        let newest_of_old = highest.unwrap_or_default().saturating_sub(u64::from(OPERATIONS_KEPT));
        if newest_of_old == 0 {
            return Ok(());
        }
        let range = Range {
            from: self.layout.operation(newest_of_old),
            to: end_of(&self.layout.operations()),
            limit: PAGE,
            order: Order::Ascending,
            part: Part::Whole,
        };
        for stored in self.cluster.range(call, &range)?.read {
            let summary: OperationSummary = from_text("operation", &stored.value)?;
            if summary.result == OperationResult::Running {
                continue;
            }
            let mut txn = unchanged(&stored);
            txn.delete(&self.layout.place(&summary.id));
            let entries = self.layout.journal(&summary.id);
            txn.delete_range(&entries, &end_of(&entries));
            self.cluster.txn(call, &txn, Effect::Harmless)?;
        }
        Ok(())
    }

    fn forget_keys(&mut self, call: &mut Call) -> Result<(), StoreError> {
        let Some(clock) = self.tidying.clock else { return Ok(()) };
        let range = Range {
            from: self.tidying.next_key.take().unwrap_or_else(|| self.layout.keys()),
            to: end_of(&self.layout.keys()),
            limit: PAGE,
            order: Order::Ascending,
            part: Part::Whole,
        };
        let found = self.cluster.range(call, &range)?.read;
        for stored in &found {
            if Remembered::read(&stored.value)?.is_over(clock) {
                self.cluster.txn(call, &unchanged(stored), Effect::Harmless)?;
            }
        }
        if let Some(last) = found.last().filter(|_| found.len() >= PAGE as usize) {
            self.tidying.next_key = Some(format!("{}\0", last.key));
        }
        Ok(())
    }
}

/// Delete a key if it is what was read.
fn unchanged(stored: &Stored) -> Txn {
    let mut txn = Txn::default();
    txn.when_modified(&stored.key, stored.modified);
    txn.delete(&stored.key);
    txn
}
