//! Which key holds what. All of it lies below `/tier0/<stack>/`.
//!
//! | key | value |
//! |---|---|
//! | `record` | the authority record, sealed ([`super::envelope`]) |
//! | `record-before-<time>` | what `record` held when a person put another in its place |
//! | `heard` | its lineage, epoch and revision: what a swap compares |
//! | `fence` | changed to end whatever is still under way ([`super::fence`]) |
//! | `history/<revision>` | what `record` held at that revision |
//! | `operations/<place, from the end>` | an operation; the newest comes first in the order of keys |
//! | `places/<operation>` | its place in the order of acceptance |
//! | `journal/<operation>/<write>` | its entries of one write |
//! | `keys/<idempotency key>` | the operation that it started |

use tier0_core::words::{Heard, OperationId, Revision, StackName};

/// The names of the keys of one stack.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    prefix: String,
}

impl Layout {
    pub(super) fn of(stack: &StackName) -> Layout {
        Layout { prefix: format!("/tier0/{stack}/") }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn record(&self) -> String {
        self.key("record")
    }

    pub(super) fn aside(&self, at: i64) -> String {
        self.key(&format!("record-before-{at}"))
    }

    pub(super) fn heard(&self) -> String {
        self.key("heard")
    }

    pub(super) fn fence(&self) -> String {
        self.key("fence")
    }

    pub(super) fn history(&self, revision: u64) -> String {
        self.key(&format!("history/{revision:020}"))
    }

    pub(super) fn history_of(&self, revision: Revision) -> String {
        self.history(revision.number())
    }

    /// What every key of an operation begins with.
    pub(super) fn operations(&self) -> String {
        self.key("operations/")
    }

    /// Counted from the end, because etcd reads a range in the order of its keys; any other order
    /// makes it read all of the range first.
    pub(super) fn operation(&self, place: u64) -> String {
        self.key(&format!("operations/{:020}", u64::MAX - place))
    }

    /// The place that a key of an operation names.
    pub(super) fn place_of(&self, key: &str) -> Option<u64> {
        key.strip_prefix(&self.operations())?.parse().ok().map(|from_end: u64| u64::MAX - from_end)
    }

    pub(super) fn place(&self, operation: &OperationId) -> String {
        self.key(&format!("places/{operation}"))
    }

    /// What every key of an operation's entries begins with.
    pub(super) fn journal(&self, operation: &OperationId) -> String {
        self.key(&format!("journal/{operation}/"))
    }

    /// What every idempotency key begins with.
    pub(super) fn keys(&self) -> String {
        self.key("keys/")
    }

    pub(super) fn idempotency_key(&self, key: &str) -> String {
        self.key(&format!("keys/{key}"))
    }
}

/// The first key after all that begin with this prefix, which ends in `/`.
pub(super) fn end_of(prefix: &str) -> String {
    // '0' is the byte after '/'.
    format!("{}0", prefix.trim_end_matches('/'))
}

/// The value of `heard`.
pub(super) fn heard_text(heard: &Heard) -> String {
    format!("{} {} {}", heard.lineage, heard.epoch, heard.revision)
}
