//! What an agent must not forget: the newest record it has heard of, and for each node the newest
//! command it obeyed with its outcome. One small file, replaced in place.
//!
//! A file of another version, or without one whole copy of what was kept, is refused: an agent that
//! guesses what it obeyed could obey it again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tier0_core::agent::Obeyed;
use tier0_core::words::{Heard, NodeId};

use crate::slots::{Slots, Unreadable};

/// The version of the file that this build writes and reads.
const FORMAT: u32 = 2;
/// Its name in the state directory.
const NAME: &str = "agent.state";
/// The file of version 1, which was replaced as a whole.
const NAME_1: &str = "agent.json";

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
    path: PathBuf,
    kept: Kept,
    slots: Slots,
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
        let older = directory.join(NAME_1);
        if older.try_exists().map_err(file("look at", &older))? {
            return Err(StateError::Version { path: older, found: 1 });
        }
        let path = directory.join(NAME);
        let (slots, content) =
            Slots::open(&path, &encode(&Kept::default())).map_err(|error| match error {
                Unreadable::File(source) => file("open", &path)(source),
                Unreadable::Damaged(what) => StateError::Damaged { path: path.clone(), what },
            })?;
        let kept = decode(&path, &content)?;
        Ok(State { path, kept, slots, lock })
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
        self.slots.replace(&encode(&kept)).map_err(|source| StateError::File {
            doing: "write",
            path: self.path.clone(),
            source,
        })?;
        self.kept = kept;
        Ok(())
    }
}

fn encode(kept: &Kept) -> Vec<u8> {
    let envelope = Envelope { format: FORMAT, kept: kept.clone() };
    serde_json::to_vec(&envelope).expect("plain data always serialises")
}

fn decode(path: &Path, content: &[u8]) -> Result<Kept, StateError> {
    let damaged = |error: serde_json::Error| StateError::Damaged {
        path: path.to_owned(),
        what: error.to_string(),
    };
    let version: serde_json::Value = serde_json::from_slice(content).map_err(damaged)?;
    let found = version.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if found != u64::from(FORMAT) {
        return Err(StateError::Version { path: path.to_owned(), found });
    }
    let envelope: Envelope = serde_json::from_slice(content).map_err(damaged)?;
    Ok(envelope.kept)
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
    fn what_no_agent_wrote_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(State::open(directory.path()).unwrap());
        let path = directory.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[1..]).unwrap();
        assert!(matches!(State::open(directory.path()), Err(StateError::Damaged { .. })));
        for content in [&b""[..], b"{}", b"{\"format\":2}", b"{\"format\":2,\"kept\":[]}"] {
            let directory = tempfile::tempdir().unwrap();
            Slots::open(&directory.path().join(NAME), content).unwrap();
            assert!(State::open(directory.path()).is_err(), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let content = br#"{"format":3,"kept":{"heard":null,"obeyed":{}}}"#;
        Slots::open(&directory.path().join(NAME), content).unwrap();
        assert!(matches!(State::open(directory.path()), Err(StateError::Version { found: 3, .. })));
        fs::write(directory.path().join(NAME_1), "").unwrap();
        assert!(matches!(State::open(directory.path()), Err(StateError::Version { found: 1, .. })));
    }
}
