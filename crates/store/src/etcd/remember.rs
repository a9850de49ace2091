//! Idempotency keys: which operation a request started, so that asking twice starts one.

use serde::{Deserialize, Serialize};
use tier0_core::words::{OperationId, WallMillis};

use super::Etcd;
use super::cluster::{Call, Effect};
use super::message::Txn;
use super::write_id::WriteId;
use crate::version::{from_text, to_text};
use crate::{KEY_LIFE_MILLIS, StoreError};

/// What a key is remembered with.
#[derive(Serialize, Deserialize)]
pub(super) struct Remembered {
    operation: OperationId,
    at: WallMillis,
    write: String,
}

impl Remembered {
    pub(super) fn read(value: &str) -> Result<Remembered, StoreError> {
        from_text("idempotency key", value)
    }

    /// Whether it is to be forgotten.
    pub(super) fn is_over(&self, now: WallMillis) -> bool {
        self.at.0 <= now.0.saturating_sub(KEY_LIFE_MILLIS)
    }
}

impl Etcd {
    pub(super) fn remember(
        &mut self,
        call: &mut Call,
        key: &str,
        operation: &OperationId,
        at: WallMillis,
    ) -> Result<Option<OperationId>, StoreError> {
        self.tidying.note_clock(at);
        let write = WriteId::new().to_string();
        let remembered = Remembered { operation: operation.clone(), at, write: write.clone() };
        let value = to_text("idempotency key", &remembered)?;
        let key = self.layout.idempotency_key(key);
        let mut seen = 0;
        loop {
            let mut txn = Txn::default();
            txn.when_modified(&key, seen);
            self.fence.guard(&self.layout, &mut txn);
            txn.put(&key, &value);
            txn.else_read(&key);
            let answer = self.cluster.txn(call, &txn, Effect::Write)?;
            if answer.held {
                return Ok(None);
            }
            if let Some(stored) = answer.of(&key) {
                let known = Remembered::read(&stored.value)?;
                if known.write == write {
                    return Ok(None);
                }
                if !known.is_over(at) {
                    return Ok(Some(known.operation));
                }
            }
            seen = answer.modified(&key);
            self.fence.learn(&self.layout, &answer);
        }
    }
}
