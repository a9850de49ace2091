//! Small files beside the data directory that must be read whole or not at all: which membership
//! the data is (P3), that a join is not proven yet (P1), that a rewind may have broken off.
//!
//! One line: a checksum, then JSON with a version. A file that is cut or changed anywhere, has another
//! version or other fields is refused; nothing in it is ever guessed.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tier0_core::words::{SyncName, SystemId};

use crate::durable;

/// The version that this build writes and reads.
const VERSION: u32 = 2;

/// Which membership a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: SyncName,
    /// The cluster it is a copy of.
    pub(crate) system: SystemId,
}

/// A join that is not proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joining {
    /// The name that the primary waits for.
    pub(crate) name: SyncName,
    /// The rule before: nobody, or a name that nobody has (P9).
    #[serde(default)]
    pub(crate) before: String,
}

/// A rewind that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rewinding {
    /// What was measured before it began, in bytes.
    pub(crate) diverged_bytes: u64,
    /// Where that is kept.
    pub(crate) kept_at: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    version: u32,
    is: T,
}

/// Why a marker cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarkerError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is cut, of another version, or not a marker.
    #[error("{path} is damaged or of another version: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Read a marker; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, MarkerError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text)
            .map(Some)
            .map_err(|why| MarkerError::Damaged { path: path.to_owned(), why }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MarkerError::Io { path: path.to_owned(), source }),
    }
}

/// Write a marker; it is on disk when this returns.
pub(crate) async fn write<T: Serialize>(path: &Path, is: &T) -> Result<(), MarkerError> {
    let failed = |source| MarkerError::Io { path: path.to_owned(), source };
    let text = text(is).map_err(|error| failed(io::Error::other(error)))?;
    durable::write(path, &text).await.map_err(failed)
}

fn text<T: Serialize>(is: &T) -> Result<String, serde_json::Error> {
    let body = serde_json::to_string(&Versioned { version: VERSION, is })?;
    Ok(format!("{} {body}\n", checksum(&body)))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let line = text.strip_suffix('\n').ok_or("it does not end with a line break")?;
    let (sum, body) = line.split_once(' ').ok_or("it has no checksum")?;
    if sum != checksum(body) {
        return Err("the checksum does not fit".to_owned());
    }
    let read: Versioned<T> = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if read.version != VERSION {
        return Err(format!("version {}, this build knows {VERSION}", read.version));
    }
    Ok(read.is)
}

fn checksum(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_or_a_change_anywhere_is_refused() {
        let member = Member {
            name: "main.region2#7".parse().unwrap(),
            system: SystemId("7300000000000000001".into()),
        };
        let whole = text(&member).unwrap();
        assert_eq!(parse::<Member>(&whole), Ok(member));
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(parse::<Member>(&changed).is_err(), "bit {bit} of byte {place}");
            }
        }
        for length in 0..whole.len() {
            assert!(parse::<Member>(&whole[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn another_version_or_field_is_refused() {
        let summed = |body: &str| format!("{} {body}\n", checksum(body));
        let right = r#"{"version":2,"is":{"name":"main.region2#7","system":"7"}}"#;
        assert!(parse::<Member>(&summed(right)).is_ok());
        let other = r#"{"version":1,"is":{"name":"main.region2#7","system":"7"}}"#;
        assert!(parse::<Member>(&summed(other)).is_err());
        let more = r#"{"version":2,"is":{"name":"main.region2#7","system":"7","x":1}}"#;
        assert!(parse::<Member>(&summed(more)).is_err());
    }
}
