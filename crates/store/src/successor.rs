//! What may follow a record, whichever store it lies in. Left out: who may write it, and when.

use tier0_core::record::Record;
use tier0_core::words::Heard;

use crate::StoreError;

/// What can be said of a successor by its names alone.
pub(crate) fn check_names(expected: &Heard, next: &Record) -> Result<(), StoreError> {
    let problem = if next.lineage != expected.lineage {
        "it is of another lineage"
    } else if expected.revision.number().checked_add(1) != Some(next.revision.number()) {
        "its revision is not the next one"
    } else if next.epoch != expected.epoch
        && expected.epoch.number().checked_add(1) != Some(next.epoch.number())
    {
        "its epoch is neither the same nor the next one"
    } else {
        return Ok(());
    };
    Err(StoreError::NotASuccessor { expected: expected.clone(), next: next.heard(), problem })
}

/// What can be said of a successor only beside the record that it follows.
pub(crate) fn check_successor(current: &Record, next: &Record) -> Result<(), StoreError> {
    let problem = if next.stack != current.stack {
        "it is of another stack"
    } else if next.writer != current.writer && next.epoch == current.epoch {
        "the writer changes and the epoch does not"
    } else {
        return Ok(());
    };
    Err(StoreError::NotASuccessor { expected: current.heard(), next: next.heard(), problem })
}
