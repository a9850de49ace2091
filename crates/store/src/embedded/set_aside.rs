//! Setting a lost or damaged store aside, so that a new one can be begun. A person decides that;
//! nothing here is called by a running orchestrator.

use std::path::{Path, PathBuf};

use super::OpenError;
use super::directory::{self, DirectoryLock};
use super::{file, marker};

/// Move the store in `directory` into a new directory beneath it, named by `label`, and answer
/// which. Nothing is deleted. Fails while a process has the store, and where the label is taken.
pub fn set_aside(directory: &Path, label: &str) -> Result<PathBuf, OpenError> {
    let lock = DirectoryLock::take(directory)?;
    let target = lock.directory().join(format!("set-aside-{label}"));
    let access = |doing| move |source| OpenError::Access { doing, path: directory.into(), source };
    std::fs::create_dir(&target).map_err(access("make a place beneath"))?;
    // The marker last: while it is there, a missing store is refused and not begun anew.
    let wal = format!("{}-wal", file::NAME);
    for name in [file::NAME, &wal, marker::NAME] {
        let from = lock.directory().join(name);
        if from.try_exists().map_err(access("look into"))? {
            std::fs::rename(&from, target.join(name)).map_err(access("move files of"))?;
        }
    }
    for changed in [target.as_path(), lock.directory()] {
        directory::sync(changed).map_err(access("make durable"))?;
    }
    Ok(target)
}
