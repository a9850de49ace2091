//! Files that are whole or not there, also after a power cut: written beside, flushed, renamed,
//! and the directory flushed. Nothing here knows what is in them.
//!
//! Work on a path goes on when the order that asked for it is dropped. Whoever works on that path
//! next waits for it: an older content must not come back over a newer one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

type Turns = BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>;

/// `path` with `suffix` after its last component: `/a/data` and `.member` make `/a/data.member`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Put `content` at `path`, readable by the owner only. Returns once it is on disk.
pub(crate) async fn write(path: &Path, content: &str) -> io::Result<()> {
    let (path, content) = (path.to_owned(), content.to_owned());
    in_turn(path, move |path| write_now(path, &content)).await
}

/// Put `content` at `path` as a whole, for a server that runs; after a power cut the old content
/// may be back. For files that are written anew before every start.
pub(crate) async fn replace(path: &Path, content: &str) -> io::Result<()> {
    let (path, content) = (path.to_owned(), content.to_owned());
    in_turn(path, move |path| {
        let part = write_part(path, &content)?.0;
        fs::rename(&part, path)
    })
    .await
}

/// Take a file away. Returns once that is on disk; a file that is not there is no error.
pub(crate) async fn remove(path: &Path) -> io::Result<()> {
    in_turn(path.to_owned(), |path| match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
    .await
}

/// Rename, and return once that is on disk.
pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(move || {
        fs::rename(&from, &to)?;
        sync_directory_of(&to)
    })
    .await
}

/// Remove a directory with all it holds; one that is not there is no error.
pub(crate) async fn remove_tree(path: &Path) -> io::Result<()> {
    in_turn(path.to_owned(), |path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    })
    .await
}

/// File work on one path, after all that was begun on it before, also by orders that were dropped.
async fn in_turn(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);
    let turn = {
        // Only entries are added, so a panic elsewhere leaves it whole.
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(path.clone()).or_default().clone()
    };
    let turn = turn.lock_owned().await;
    blocking(move || {
        // Goes with the work, not with whoever waits for it.
        let _turn = turn;
        work(&path)
    })
    .await
}

/// Run file work outside the threads that answer polls.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn write_now(path: &Path, content: &str) -> io::Result<()> {
    let (part, file) = write_part(path, content)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    sync_directory_of(path)
}

fn write_part(path: &Path, content: &str) -> io::Result<(PathBuf, File)> {
    let part = beside(path, ".part");
    // The mode is given at creation, so there is no moment at which others can read a secret. A
    // part that a crash left behind may have another mode or owner.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(content.as_bytes())?;
    Ok((part, file))
}

/// Flush the directory entry of `path`.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::Context;

    #[tokio::test]
    async fn a_write_that_was_dropped_never_lands_after_a_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        // Takes longer to write than the second one.
        let old = "old".repeat(30 << 20);
        {
            let mut dropped = Box::pin(write(&path, &old));
            let _ = dropped.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
        write(&path, "new").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 3);
    }
}
