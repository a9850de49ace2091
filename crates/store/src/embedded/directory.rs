//! The store's directory: who may use it, and that only one process does.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};

use super::OpenError;

/// File systems whose locks and fsync cannot be relied on: NFS, SMB, CIFS, SMB2.
const NETWORK_FILE_SYSTEMS: [u32; 4] = [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42];

/// An exclusive lock on a directory. The kernel ends it with the process, however that ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    directory: PathBuf,
    file: File,
}

impl DirectoryLock {
    /// Make the directory if it is missing (mode 0700), and lock it.
    pub(super) fn take(directory: &Path) -> Result<DirectoryLock, OpenError> {
        let access = |doing: &'static str| {
            move |source| OpenError::Access { doing, path: directory.to_owned(), source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(access("create store directory"))?;
        let mode =
            directory.metadata().map_err(access("look at store directory"))?.permissions().mode();
        if mode & 0o022 != 0 {
            return Err(OpenError::Exposed { path: directory.to_owned(), mode: mode & 0o777 });
        }
        let kind = statfs(directory)
            .map_err(|error| access("look at the file system of")(error.into()))?
            .f_type;
        // The kernel's magic numbers are 32 bits; the field's width and sign vary by platform.
        if NETWORK_FILE_SYSTEMS.contains(&(kind as u32)) {
            return Err(OpenError::NetworkFileSystem { path: directory.to_owned() });
        }

        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))
            .map_err(access("open the lock in"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if std::io::Error::from(error).kind() == ErrorKind::WouldBlock => {
                return Err(OpenError::InUse {
                    path: directory.to_owned(),
                    holder: read_holder(&mut file),
                });
            }
            Err(error) => return Err(access("lock")(error.into())),
        }
        write_holder(&mut file).map_err(access("write the lock in"))?;
        Ok(DirectoryLock { directory: directory.to_owned(), file })
    }

    /// The directory that is locked.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has forked and that has not yet called
        // exec holds the same lock. Should this fail, closing still ends it a moment later.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

/// The process that wrote itself into the lock file, if one did.
fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Make changes of names in the directory durable.
pub(super) fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}
