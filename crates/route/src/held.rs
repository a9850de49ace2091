//! The hold that must not be forgotten: until when it lasts, in memory and in a small file, so that
//! the next run of the agent ends it as well. An operator's own PAUSE has no such file, and is left
//! alone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A hold may not last longer than this, whatever a file says: a clock may have been set.
const LONGEST: Duration = Duration::from_secs(600);

/// A hold under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Since when, as far as this run of the agent knows.
    pub began: Instant,
    /// When it ends by itself.
    pub until: Instant,
}

/// The file beside the file that says where the route points.
pub(crate) fn path(pointer_file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.held", pointer_file.display()))
}

/// Note a hold that is about to begin.
pub(crate) fn note(path: &Path, lasting: Duration) -> std::io::Result<()> {
    let until = SystemTime::now() + lasting;
    let since = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    std::fs::write(path, format!("{}\n", since.as_millis()))
}

/// The hold that an earlier run of the agent left, if it left one. A file that cannot be read is
/// one that ends now.
pub(crate) fn left(path: &Path) -> std::io::Result<Option<Held>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let until = text.trim().parse().map_or(SystemTime::UNIX_EPOCH, |millis| {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    });
    let left = until.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST);
    let began = Instant::now();
    Ok(Some(Held { began, until: began + left }))
}

/// It is over.
pub(crate) fn forget(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_hold_outlives_the_run_that_began_it_and_ends_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory.path().join("databases.ini"));
        assert_eq!(left(&path).unwrap(), None);
        note(&path, Duration::from_secs(60)).unwrap();
        let held = left(&path).unwrap().unwrap();
        let lasts = held.until - held.began;
        assert!(lasts > Duration::from_secs(30) && lasts <= Duration::from_secs(60), "{lasts:?}");
        std::fs::write(&path, "no number").unwrap();
        let held = left(&path).unwrap().unwrap();
        assert_eq!(held.until, held.began);
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert_eq!(left(&path).unwrap(), None);
    }
}
