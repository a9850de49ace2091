//! Settling: a write whose answer was lost must not become true later (R4).
//!
//! Such a request may still be under way: in a socket, in a member that was frozen, in a member that
//! waits for a leader. Reading the record tells what it has done so far and nothing of what it will
//! do: a read that says "not stored" can be followed by the store. So every write is carried out
//! only if the key `fence` was changed last at the revision of etcd that the writer knows. After a
//! write without an answer the next call changes that key before it does anything else. Revisions of
//! etcd only grow, so from then on the old request finds another one whenever it arrives, and what
//! the call reads afterwards is the last word.
//!
//! The key is one for all orchestrators of a stack, so the others learn of it when their next write is
//! not carried out, and try again with what they found.

use super::cluster::{Call, Effect};
use super::message::{Answer, Txn};
use super::write_id::WriteId;
use super::{Etcd, Layout};
use crate::StoreError;

/// What is known of the fence.
#[derive(Debug)]
pub(super) struct Fence {
    /// The revision of etcd at which it was changed last; 0 if never, or if that is not known yet.
    revision: u64,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing of ours is under way.
    Settled,
    /// A write had no answer.
    Unsettled,
}

impl Fence {
    pub(super) fn new() -> Fence {
        Fence { revision: 0, standing: Standing::Settled }
    }

    /// Let the transaction be carried out only before the fence, and say where that is otherwise.
    pub(super) fn guard(&self, layout: &Layout, txn: &mut Txn) {
        txn.when_modified(&layout.fence(), self.revision);
        txn.else_read(&layout.fence());
    }

    /// Take note of where it was found.
    pub(super) fn learn(&mut self, layout: &Layout, answer: &Answer) {
        self.revision = answer.modified(&layout.fence());
    }

    /// A write had no answer.
    pub(super) fn needed(&mut self) {
        self.standing = Standing::Unsettled;
    }
}

impl Etcd {
    /// See to it that nothing of ours is under way any more.
    pub(super) fn settle(&mut self, call: &mut Call) -> Result<(), StoreError> {
        if self.fence.standing == Standing::Settled {
            return Ok(());
        }
        let mut txn = Txn::default();
        txn.put(&self.layout.fence(), &format!("moved by {}", WriteId::new()));
        // One that arrives late only moves the fence again.
        let answer = self.cluster.txn(call, &txn, Effect::Harmless)?;
        self.fence = Fence { revision: answer.revision, standing: Standing::Settled };
        Ok(())
    }
}
