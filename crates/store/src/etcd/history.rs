//! Past records, for people who ask how it came to be what it is.

use super::cluster::Call;
use super::message::{Order, Part, Range};
use super::{Etcd, envelope};
use crate::{StoreError, StoredRecord};

/// So many are read at once: a record has a few thousand bytes.
const PAGE: u32 = 500;

impl Etcd {
    pub(super) fn read_history(
        &mut self,
        call: &mut Call,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let Some(newest) = self.read_record(call)? else { return Ok(Vec::new()) };
        let mut past = Vec::new();
        let mut end = newest.revision.number().saturating_add(1);
        while end > 0 && (past.len() as u64) < u64::from(limit) {
            let wanted = PAGE.min(limit - u32::try_from(past.len()).unwrap_or(limit));
            // Revisions rarely leave gaps, so the newest are mostly found without looking at more.
            let start = end.saturating_sub(u64::from(wanted));
            let found = self.past_between(call, start, end, Order::Ascending)?;
            if found.is_empty() {
                let rest = self.past_between(call, 0, start, Order::Descending)?;
                let Some(next) = rest.first() else { break };
                end = next.record.revision.number().saturating_add(1);
                continue;
            }
            past.extend(found.into_iter().rev());
            end = start;
        }
        Ok(past)
    }

    /// Those of these revisions: all, the lowest first, or the highest of them alone.
    fn past_between(
        &mut self,
        call: &mut Call,
        start: u64,
        end: u64,
        order: Order,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let range = Range {
            from: self.layout.history(start),
            to: self.layout.history(end),
            limit: match order {
                Order::Ascending => PAGE,
                Order::Descending => 1,
            },
            order,
            part: Part::Whole,
        };
        let answer = self.cluster.range(call, &range)?;
        let opened = answer.read.iter().map(|stored| {
            let past = envelope::open(&stored.value)?;
            if stored.key != self.layout.history_of(past.record.revision) {
                return Err(StoreError::Damaged {
                    what: format!("{} holds {}", stored.key, past.record.heard()),
                });
            }
            Ok(past)
        });
        opened.collect()
    }
}
