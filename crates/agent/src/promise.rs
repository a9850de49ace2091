//! Until when a peer relies on this agent promoting nobody, in a file: the next agent is bound by it.
//!
//! It need not outlast the machine, whose next start takes longer than any lease, so nothing waits
//! for the disk.

use std::path::{Path, PathBuf};

use tier0_core::lease::Boot;

/// The file.
pub struct Promise {
    path: PathBuf,
}

impl Promise {
    /// The file in an agent's state directory.
    pub fn new(directory: &Path) -> Promise {
        Promise { path: directory.join("relied-on-until") }
    }

    /// What was kept. A file that says nothing was never relied on: it is written whole before a peer
    /// is told.
    pub fn read(&self) -> Option<Boot> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        text.trim().parse().ok().map(Boot::from_stamp)
    }

    /// Keep it; whether that worked, without which no peer may be told.
    pub fn keep(&self, until: Option<Boot>) -> bool {
        let Some(until) = until else { return true };
        let fresh = self.path.with_extension("new");
        let kept = std::fs::write(&fresh, format!("{}\n", until.stamp()))
            .and_then(|()| std::fs::rename(&fresh, &self.path));
        if let Err(error) = &kept {
            tracing::error!(%error, path = %self.path.display(), "a promise cannot be kept");
        }
        kept.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_promised_is_read_again_and_nothing_else_is_a_promise() {
        let directory = tempfile::tempdir().unwrap();
        let promise = Promise::new(directory.path());
        assert_eq!(promise.read(), None);
        assert!(promise.keep(Some(Boot::from_stamp(1_234_567))));
        assert_eq!(promise.read(), Some(Boot::from_stamp(1_234_567)));
        assert!(!Promise::new(&directory.path().join("nowhere")).keep(promise.read()));
    }
}
