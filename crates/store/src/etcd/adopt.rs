//! Beginning the record anew after the cluster lost it or was put back from a copy (R2). By a person,
//! never by a running orchestrator.

use tier0_core::record::Record;
use tier0_core::words::WallMillis;

use super::cluster::Effect;
use super::layout::heard_text;
use super::message::Txn;
use super::write_id::WriteId;
use super::{Etcd, envelope, now};
use crate::StoreError;

impl Etcd {
    /// Put a record in place, whatever was there, readable or not. Answers under which key that is
    /// kept, if there was anything.
    pub fn adopt(&mut self, record: &Record) -> Result<Option<String>, StoreError> {
        let at = now();
        let value = envelope::seal(record, WallMillis(at), &WriteId::new())?;
        let aside = self.layout.aside(at);
        self.write("put a record in place in etcd", |store, call| {
            loop {
                let mut look = Txn::default();
                for key in [store.layout.record(), store.layout.fence()] {
                    look.read(&key);
                }
                let old = match store.cluster.txn(call, &look, Effect::Harmless) {
                    Ok(found) => {
                        store.fence.learn(&store.layout, &found);
                        found.of(&store.layout.record()).map(|old| old.value.clone())
                    }
                    // Not even text: past records are in the history, and etcd keeps what it had.
                    Err(StoreError::Damaged { .. }) => None,
                    Err(error) => return Err(error),
                };
                let mut txn = Txn::default();
                store.fence.guard(&store.layout, &mut txn);
                if let Some(old) = &old {
                    txn.when_value(&store.layout.record(), old);
                    txn.put(&aside, old);
                }
                txn.put(&store.layout.record(), &value);
                txn.put(&store.layout.heard(), &heard_text(&record.heard()));
                txn.put(&store.layout.history_of(record.revision), &value);
                if store.cluster.txn(call, &txn, Effect::Write)?.held {
                    store.newest = Some(record.clone());
                    return Ok(old.is_some().then_some(aside));
                }
            }
        })
    }
}
