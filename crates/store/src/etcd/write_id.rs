//! A name for each write, by which it is known again after its answer was lost: two orchestrators
//! may want to store the very same record, and only one of them has stored it.

use std::fmt;

/// Different for every write of every process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteId(uuid::Uuid);

impl WriteId {
    pub(super) fn new() -> WriteId {
        WriteId(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}
