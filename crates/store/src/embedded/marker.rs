//! The file `initialised` beside the store: that a record was acknowledged here, and which one was
//! the newest.
//!
//! It turns silent loss into a refusal (R2). A store whose file is gone, empty, restored from an
//! older copy, or whose WAL lost its tail would otherwise open as if nothing had happened. It is
//! written in place without an fsync: after a loss of power it may be older than the store, which
//! is harmless, and never newer.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};
use tier0_core::words::Heard;

use super::directory;

/// The file's name.
pub(super) const NAME: &str = "initialised";

/// The file always has this many bytes, so that rewriting it never changes its size.
const BYTES: usize = 256;

/// The marker of a store that holds a record.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    newest: Heard,
}

/// What can be said of the marker's file.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarkerError {
    /// It cannot be used.
    #[error("use the file {NAME}")]
    Io(#[from] std::io::Error),
    /// It is not what was written.
    #[error("it does not match its checksum")]
    Damaged,
}

impl Marker {
    /// The marker, if there is one.
    pub(super) fn read(directory: &Path) -> Result<Option<Marker>, MarkerError> {
        let file = match OpenOptions::new().read(true).write(true).open(directory.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.len() != BYTES as u64 {
            return Err(MarkerError::Damaged);
        }
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let newest = from_bytes(&bytes).ok_or(MarkerError::Damaged)?;
        Ok(Some(Marker { file, newest }))
    }

    /// Make the marker. It appears whole or not at all.
    pub(super) fn begin(directory: &Path, heard: &Heard) -> std::io::Result<Marker> {
        let temporary = directory.join("initialised.new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&to_bytes(heard)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, directory.join(NAME))?;
        directory::sync(directory)?;
        Ok(Marker { file, newest: heard.clone() })
    }

    /// Note a newer record.
    pub(super) fn advance(&mut self, heard: &Heard) -> std::io::Result<()> {
        self.file.write_all_at(&to_bytes(heard)?, 0)?;
        self.newest = heard.clone();
        Ok(())
    }

    /// The newest record that was acknowledged, as far as the marker knows.
    pub(super) fn newest(&self) -> &Heard {
        &self.newest
    }
}

fn to_bytes(heard: &Heard) -> std::io::Result<[u8; BYTES]> {
    let text = serde_json::to_string(heard)?;
    let line = format!("{text}\t{}", checksum(&text));
    let mut bytes = [b' '; BYTES];
    // 40 characters of lineage and two numbers of 20 digits leave room to spare.
    let room = bytes.get_mut(..line.len()).ok_or(ErrorKind::InvalidInput)?;
    room.copy_from_slice(line.as_bytes());
    bytes[BYTES - 1] = b'\n';
    Ok(bytes)
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_bytes(bytes: &[u8; BYTES]) -> Option<Heard> {
    let (text, expected) = std::str::from_utf8(bytes).ok()?.trim_end().split_once('\t')?;
    if checksum(text) != expected {
        return None;
    }
    serde_json::from_str(text).ok()
}
