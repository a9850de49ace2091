//! What a store that is given up held last: for a person who begins it anew, never for a running
//! orchestrator. Nothing in it may be relied on: it may be an old copy.

use std::path::Path;

use tier0_core::record::Record;

use super::directory::DirectoryLock;
use super::file::Contents;
use super::{OpenError, file, record};

/// The record in the store of `directory`, whatever its marker says; `None` where there is no store.
/// Fails while a process has the store, and where it cannot be read.
pub fn last_record(directory: &Path) -> Result<Option<Record>, OpenError> {
    let _lock = DirectoryLock::take(directory)?;
    let path = directory.join(file::NAME);
    if !std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
        return Ok(None);
    }
    let (connection, contents) = file::open(&path)?;
    match contents {
        Contents::Nothing => Ok(None),
        Contents::Ours => {
            let loaded = record::load(&connection);
            loaded.map_err(|error| OpenError::damaged(&path, &error.to_string()))
        }
    }
}
