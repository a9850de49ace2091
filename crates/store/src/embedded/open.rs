//! Opening: take the lock, judge what is there, and refuse rather than begin anew.

use std::path::{Path, PathBuf};

use tier0_core::words::Heard;

use super::directory::{self, DirectoryLock};
use super::file::{self, Contents};
use super::marker::{self, Marker, MarkerError};
use super::{Embedded, Health, record};
use crate::StoreError;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("{doing} {path}")]
    Access {
        /// What was being done.
        doing: &'static str,
        /// With which directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Others could change the store.
    #[error("store directory {path} may be written by others (mode {mode:o}): chmod 700 it")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Locks and fsync do not mean there what they must mean here.
    #[error("store directory {path} is on a network file system: use a local disk")]
    NetworkFileSystem {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it.
    #[error(
        "the store in {path} is in use by {}",
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, if it said so.
        holder: Option<u32>,
    },
    /// This build was linked with a SQLite that may lose commits.
    #[error(
        "SQLite {version} is older than 3.51.3, which may lose commits: build with a newer one"
    )]
    OldSqlite {
        /// Its version.
        version: &'static str,
    },
    /// SQLite cannot use the file, for a reason that lies outside of it.
    #[error("open record store {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Another version of tier0 made it.
    #[error(
        "record store {path} has version {found}, this build knows only {known}: use the tier0 \
         that made it"
    )]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version of this build.
        known: i64,
    },
    /// What is in it is not what was written.
    #[error(
        "record store {path} is damaged: {what}; nothing was changed: keep a copy of its \
         directory, then run `tier0 authority adopt`"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A record was acknowledged here, and it is gone (R2).
    #[error(
        "the record store in {path} is lost: {what}; it is not begun anew: put the missing files \
         back, or run `tier0 authority adopt`"
    )]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
}

impl OpenError {
    pub(super) fn damaged(path: &Path, what: &str) -> OpenError {
        OpenError::Damaged { path: path.to_owned(), what: what.to_owned() }
    }
}

impl Embedded {
    /// Open the store in this directory, or begin one where there never was one. The store is
    /// this process's alone until it is dropped.
    pub fn open(directory: &Path) -> Result<Embedded, OpenError> {
        let lock = DirectoryLock::take(directory)?;
        let path = directory.join(file::NAME);
        let marker = Marker::read(directory).map_err(|error| match error {
            MarkerError::Io(source) => {
                OpenError::Access { doing: "read marker in", path: directory.to_owned(), source }
            }
            MarkerError::Damaged => {
                OpenError::damaged(&directory.join(marker::NAME), &error.to_string())
            }
        })?;
        refuse_missing(directory, marker.as_ref())?;
        let (mut connection, contents) = file::open(&path)?;
        match (contents, &marker) {
            (Contents::Ours, _) => {}
            (Contents::Nothing, Some(marker)) => {
                return Err(lost(directory, format!("{} is empty", file::NAME), marker));
            }
            (Contents::Nothing, None) => {
                file::make_tables(&mut connection, &path)?;
                directory::sync(directory).map_err(|source| OpenError::Access {
                    doing: "make durable",
                    path: directory.to_owned(),
                    source,
                })?;
            }
        }
        let mut store =
            Embedded { connection, marker, lock, health: Health::Sound, commits_in_wal: 0 };
        if let Some(heard) = store.judge_record(&path)? {
            store.mark(&heard);
        }
        file::tidy_on_close(&store.connection).map_err(|error| file::classify(&path, error))?;
        Ok(store)
    }

    /// Compare the record with the marker.
    fn judge_record(&self, path: &Path) -> Result<Option<Heard>, OpenError> {
        let directory = self.lock.directory();
        let record = record::load(&self.connection).map_err(|error| match error {
            StoreError::Damaged { what } => OpenError::damaged(path, &what),
            StoreError::UnknownFormat { found, known, .. } => OpenError::UnknownVersion {
                path: path.to_owned(),
                found: i64::try_from(found).unwrap_or(i64::MAX),
                known: i64::from(known),
            },
            other => OpenError::damaged(path, &other.to_string()),
        })?;
        let heard = record.map(|record| record.heard());
        let Some(marker) = &self.marker else { return Ok(heard) };
        match heard {
            None => Err(lost(directory, "it holds no record".to_owned(), marker)),
            Some(found) if found.covers(marker.newest()) => Ok(Some(found)),
            Some(found) if found.lineage == marker.newest().lineage => {
                Err(lost(directory, format!("it holds only {found}"), marker))
            }
            Some(found) => {
                Err(lost(directory, format!("it holds lineage {}", found.lineage), marker))
            }
        }
    }
}

/// SQLite would begin a missing file anew, and drop a WAL that belongs to no file.
fn refuse_missing(directory: &Path, marker: Option<&Marker>) -> Result<(), OpenError> {
    let length = |name: String| std::fs::metadata(directory.join(name)).map(|file| file.len());
    if length(file::NAME.to_owned()).is_ok_and(|length| length > 0) {
        return Ok(());
    }
    if let Some(marker) = marker {
        return Err(lost(directory, format!("{} is missing or empty", file::NAME), marker));
    }
    let wal = format!("{}-wal", file::NAME);
    if length(wal.clone()).is_ok_and(|length| length > 0) {
        return Err(OpenError::Lost {
            path: directory.to_owned(),
            what: format!("{} is missing or empty, and {wal} is there", file::NAME),
        });
    }
    Ok(())
}

fn lost(directory: &Path, what: String, marker: &Marker) -> OpenError {
    let newest = marker.newest();
    OpenError::Lost {
        path: directory.to_owned(),
        what: format!("{what}, but {newest} of lineage {} was acknowledged here", newest.lineage),
    }
}
