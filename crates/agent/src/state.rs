//! What an agent must not forget: the newest record it has heard of, and for each node the newest
//! command it obeyed with its outcome. One small file, replaced as a whole.
//!
//! The file's first line is a checksum of the rest. A file of another version, a truncated one or
//! a changed one is refused: an agent that guesses what it obeyed could obey it again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tier0_core::agent::Obeyed;
use tier0_core::words::{Heard, NodeId};

/// The version of the file that this build writes and reads.
const FORMAT: u32 = 1;

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent uses it.
    #[error("another agent uses {path}: end it, or give this one a state directory of its own")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what an agent wrote.
    #[error(
        "{path} is damaged ({what}); it says what this agent has obeyed, so nothing is guessed: \
         restore it, or move it away after checking that no operation is under way"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file is of another version.
    #[error("{path} has format {found}, this build knows {FORMAT}: use the build that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The newest record heard of.
    pub heard: Option<Heard>,
    /// The newest command obeyed, by node.
    pub obeyed: BTreeMap<NodeId, Obeyed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    kept: Kept,
}

/// The durable state of one agent.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    kept: Kept,
    // Held for as long as the state is used.
    lock: File,
}

impl Drop for State {
    fn drop(&mut self) {
        // Closing is not enough: a child between fork and exec would go on holding the lock.
        let _ = self.lock.unlock();
    }
}

impl State {
    /// Open the state in a directory, making it if it is not there.
    pub fn open(directory: &Path) -> Result<State, StateError> {
        let file = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::File { doing, path, source }
        };
        fs::create_dir_all(directory).map_err(file("make directory", directory))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(file("open lock", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(StateError::Locked { path: lock_path });
        }
        let path = directory.join("agent.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => decode(&path, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(StateError::File { doing: "read", path, source }),
        };
        Ok(State { directory: directory.to_owned(), kept, lock })
    }

    /// What is kept.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Replace what is kept. Durable when it returns; unchanged if it fails.
    pub fn keep(&mut self, kept: Kept) -> Result<(), StateError> {
        if kept == self.kept {
            return Ok(());
        }
        let path = self.directory.join("agent.json");
        let new = self.directory.join("agent.json.new");
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::File { doing, path, source }
        };
        let bytes = encode(&kept);
        let mut file = File::create(&new).map_err(failed("create", &new))?;
        file.write_all(&bytes).map_err(failed("write", &new))?;
        file.sync_data().map_err(failed("sync", &new))?;
        fs::rename(&new, &path).map_err(failed("replace", &path))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync directory", &self.directory))?;
        self.kept = kept;
        Ok(())
    }
}

fn encode(kept: &Kept) -> Vec<u8> {
    let envelope = Envelope { format: FORMAT, kept: kept.clone() };
    let body = serde_json::to_vec(&envelope).expect("plain data always serialises");
    let mut bytes = checksum(&body).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    bytes
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Kept, StateError> {
    let damaged = |what: &str| StateError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| damaged("it has no checksum line"))?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    if line != checksum(body).as_bytes() {
        return Err(damaged("the checksum does not fit"));
    }
    let version: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    let found = version.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if found != u64::from(FORMAT) {
        return Err(StateError::Version { path: path.to_owned(), found });
    }
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    Ok(envelope.kept)
}

fn checksum(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tier0_core::words::{Epoch, Revision};

    fn some() -> Kept {
        let heard = Heard {
            lineage: "01234567-89ab".parse().unwrap(),
            epoch: Epoch::read(3),
            revision: Revision::read(17),
        };
        Kept { heard: Some(heard), obeyed: BTreeMap::new() }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = State::open(directory.path()).unwrap();
        state.keep(some()).unwrap();
        drop(state);
        assert_eq!(*State::open(directory.path()).unwrap().kept(), some());
    }

    #[test]
    fn a_second_agent_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = State::open(directory.path()).unwrap();
        assert!(matches!(State::open(directory.path()), Err(StateError::Locked { .. })));
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.json");
        let whole = encode(&some());
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(State::open(directory.path()).is_err(), "cut to {length} bytes");
        }
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                fs::write(&path, &changed).unwrap();
                assert!(State::open(directory.path()).is_err(), "bit {bit} of byte {place}");
            }
        }
    }

    #[test]
    fn another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let body = br#"{"format":2,"kept":{"heard":null,"obeyed":{}}}"#;
        let mut bytes = checksum(body).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        fs::write(directory.path().join("agent.json"), bytes).unwrap();
        assert!(matches!(State::open(directory.path()), Err(StateError::Version { found: 2, .. })));
    }
}
