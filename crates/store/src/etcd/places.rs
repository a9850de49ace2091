//! The place of each operation in the order of acceptance, which all orchestrators share.

use tier0_core::words::OperationId;

use super::Layout;
use super::message::{Answer, Order, Part, Range, Txn};
use crate::StoreError;

/// What is known of places. It may be out of date: each write compares it with what is.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The highest that is taken, 0 if none is; `None` until it was read.
    highest: Option<u64>,
    /// The operation that was written last, and its place.
    last: Option<(OperationId, u64)>,
}

impl Places {
    /// Whether something must be read before an operation can be written.
    pub(super) fn are_unknown(&self) -> bool {
        self.highest.is_none()
    }

    /// The place of an operation: the one that it has, or the next one.
    fn of(&self, operation: &OperationId) -> (Standing, u64) {
        match &self.last {
            Some((known, place)) if known == operation => (Standing::Taken, *place),
            Some(_) | None => (Standing::Free, self.highest.unwrap_or_default().saturating_add(1)),
        }
    }

    /// Store an operation at its place, only if that is still the right one; read what is otherwise.
    pub(super) fn put(&self, layout: &Layout, operation: &OperationId, text: &str, txn: &mut Txn) {
        let key = layout.place(operation);
        let (standing, place) = self.of(operation);
        match standing {
            Standing::Taken => txn.when_value(&key, &place.to_string()),
            Standing::Free => {
                txn.when_absent(&key);
                // Neither it nor a higher one. It alone could be free because it was forgotten.
                txn.when_range_empty(&layout.operations(), &layout.operation(place - 1));
                txn.put(&key, &place.to_string());
            }
        }
        txn.put(&layout.operation(place), text);
        txn.else_read(&key);
        txn.else_read_range(&highest(layout));
    }

    /// The operation was stored where [`Places::put`] said.
    pub(super) fn stored(&mut self, operation: &OperationId) {
        let (_, place) = self.of(operation);
        self.highest = self.highest.max(Some(place));
        self.last = Some((operation.clone(), place));
    }

    /// Read what is needed to write an operation.
    pub(super) fn read(layout: &Layout, operation: &OperationId) -> Txn {
        let mut txn = Txn::default();
        txn.read(&layout.place(operation));
        txn.read_range(&highest(layout));
        txn
    }

    /// Take note of what was read.
    pub(super) fn learn(
        &mut self,
        layout: &Layout,
        operation: &OperationId,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        self.last = match answer.of(&layout.place(operation)) {
            Some(stored) => Some((operation.clone(), number(&stored.value)?)),
            None => None,
        };
        let places = answer.read.iter().filter_map(|stored| layout.place_of(&stored.key));
        self.highest = Some(places.max().unwrap_or_default());
        Ok(())
    }
}

enum Standing {
    Taken,
    Free,
}

/// The operation with the highest place.
pub(super) fn highest(layout: &Layout) -> Range {
    Range {
        from: layout.operations(),
        to: super::layout::end_of(&layout.operations()),
        limit: 1,
        order: Order::Ascending,
        part: Part::WithoutValue,
    }
}

/// The place that a value names.
pub(super) fn number(value: &str) -> Result<u64, StoreError> {
    value
        .parse()
        .ok()
        .filter(|place| *place > 0)
        .ok_or_else(|| StoreError::Damaged { what: format!("an operation's place is {value:?}") })
}
