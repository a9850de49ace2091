//! What is in the data directory, and keeping a copy of it.
//!
//! Redis itself looks for an append-only file where one is configured, and starts empty where there
//! is none, even beside a good RDB. So "is there data" is answered for the configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::settings::Place;

/// What a start would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDisk {
    /// Nothing: it would start empty.
    Nothing,
    /// An append-only file with its manifest.
    AppendOnly,
    /// An RDB, and no append-only file.
    Snapshot,
}

/// The names that Redis gives its files under these parameters.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub append_only: bool,
    append_directory: String,
    append_file: String,
    snapshot: String,
}

impl Files {
    pub fn of(parameters: &BTreeMap<String, Vec<String>>) -> Self {
        let value = |name: &str, default: &str| {
            let text = parameters.get(name).and_then(|values| values.last()).map_or(default, |v| v);
            text.trim().trim_matches('"').to_owned()
        };
        Files {
            append_only: value("appendonly", "no") == "yes",
            append_directory: value("appenddirname", "appendonlydir"),
            append_file: value("appendfilename", "appendonly.aof"),
            snapshot: value("dbfilename", "dump.rdb"),
        }
    }

    pub fn snapshot(&self, place: &Place) -> PathBuf {
        place.directory.join(&self.snapshot)
    }

    fn all(&self, place: &Place) -> [PathBuf; 3] {
        [
            place.directory.join(&self.append_directory),
            place.directory.join(&self.append_file),
            self.snapshot(place),
        ]
    }

    /// What a start would find.
    pub fn look(&self, place: &Place) -> OnDisk {
        let directory = place.directory.join(&self.append_directory);
        // A manifest line is `file <name> seq <n> type <b|i|h>` (aof.c, aofLoadManifestFromFile).
        let manifest = fs::read_to_string(directory.join(format!("{}.manifest", self.append_file)));
        let appended = manifest.is_ok_and(|text| {
            text.lines().filter_map(|line| line.split_whitespace().nth(1)).any(|name| {
                fs::metadata(directory.join(name.trim_matches('"'))).is_ok_and(|m| m.is_file())
            })
        });
        let filled = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        // The one-file form of Redis 6 is taken over at the start.
        if self.append_only && (appended || filled(&place.directory.join(&self.append_file))) {
            OnDisk::AppendOnly
        } else if filled(&self.snapshot(place)) {
            OnDisk::Snapshot
        } else {
            OnDisk::Nothing
        }
    }

    /// Remove the data.
    pub fn discard(&self, place: &Place) -> io::Result<()> {
        for path in self.all(place) {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// A place for data that is about to be discarded: `<data directory>.diverged-<unix seconds>`.
/// It has its name only once it is whole.
pub(crate) struct Keeping {
    unfinished: PathBuf,
    finished: PathBuf,
}

impl Keeping {
    pub fn begin(place: &Place) -> io::Result<Self> {
        let mut second =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let named = |second: u64| {
            let mut name = place.directory.clone().into_os_string();
            name.push(format!(".diverged-{second}"));
            PathBuf::from(name)
        };
        while named(second).exists() {
            second += 1;
        }
        let finished = named(second);
        let mut unfinished = finished.clone().into_os_string();
        unfinished.push(".unfinished");
        let keeping = Keeping { unfinished: unfinished.into(), finished };
        match fs::remove_dir_all(&keeping.unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // As private as the data directory: the files in it may be readable by all.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&keeping.unfinished)?;
        Ok(keeping)
    }

    /// Copy what a stopped server left.
    pub fn copy_all(&self, files: &Files, place: &Place) -> io::Result<()> {
        for path in files.all(place) {
            if path.exists() {
                let name = path.file_name().unwrap_or_default().to_owned();
                copy(&path, &self.unfinished.join(name))?;
            }
        }
        Ok(())
    }

    /// Keep a finished snapshot. Redis replaces that file, never writes into it, so a second name
    /// for it costs nothing.
    pub fn take_snapshot(&self, snapshot: &Path) -> io::Result<()> {
        let kept = self.unfinished.join(snapshot.file_name().unwrap_or_default());
        fs::hard_link(snapshot, &kept).or_else(|_| fs::copy(snapshot, &kept).map(|_| ()))
    }

    /// It is whole: where it is, and how many bytes.
    pub fn finish(self) -> io::Result<(PathBuf, u64)> {
        let bytes = size(&self.unfinished)?;
        fs::rename(&self.unfinished, &self.finished)?;
        Ok((self.finished, bytes))
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        fs::copy(from, to)?;
        return fs::File::open(to)?.sync_all();
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn size(path: &Path) -> io::Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.try_fold(0, |sum, entry| Ok(sum + size(&entry?.path())?))
}
