//! Following the file while a role runs: on `SIGHUP` at once, and when the file has changed.
//!
//! The file is looked at by its path every two seconds, not watched: an editor or a configuration
//! manager puts another file in its place, which a watch on the old one never hears of.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::problem::ConfigError;
use crate::reload::{Reader, Reload, decide};
use crate::settings::Stack;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

/// The file, and what runs with it.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    reader: Reader,
    running: Stack,
    /// The state that was loaded last; none before the first look, so that a change between the
    /// role's start and that look is found.
    loaded: Option<Option<Mark>>,
    /// A newer state, seen once.
    unsettled: Option<Option<Mark>>,
}

/// What came of a look.
#[derive(Debug)]
pub enum Looked {
    /// Nothing new, or a change that may still be under way.
    Unchanged,
    /// The file cannot be used; everything stays as it is.
    Broken(ConfigError),
    /// It was compared with what runs.
    Decided(Box<Reload>),
}

impl Follower {
    /// Follow a file that `running` was loaded from.
    pub fn new(path: PathBuf, reader: Reader, running: Stack) -> Follower {
        Follower { path, reader, running, loaded: None, unsettled: None }
    }

    /// Load the file if it has changed and then stayed the same from one look to the next: half a
    /// file can be valid, and mean something else.
    pub fn look(&mut self) -> Looked {
        let mark = self.mark();
        if self.loaded == Some(mark) {
            self.unsettled = None;
            return Looked::Unchanged;
        }
        if self.unsettled != Some(mark) {
            self.unsettled = Some(mark);
            return Looked::Unchanged;
        }
        self.load()
    }

    /// Load the file.
    pub fn load(&mut self) -> Looked {
        // The mark first: a change while the file is read is then found at the next look.
        self.loaded = Some(self.mark());
        self.unsettled = None;
        let file = match Stack::load(&self.path) {
            Ok(file) => file,
            Err(error) => return Looked::Broken(error),
        };
        let reload = decide(&self.running, &file, &self.reader);
        self.running = reload.stack.clone();
        Looked::Decided(Box::new(reload))
    }

    fn mark(&self) -> Option<Mark> {
        let found = std::fs::metadata(&self.path).ok()?;
        Some(Mark {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Follow a file for ever. `apply` is given the settings to run with whenever some were taken over;
/// what was refused is logged, one sentence for each setting.
pub async fn follow(mut follower: Follower, mut apply: impl FnMut(&Stack)) {
    let mut asked = match signal(SignalKind::hangup()) {
        Ok(asked) => Some(asked),
        Err(error) => {
            tracing::warn!(%error, "no handler for SIGHUP: only the file is looked at");
            None
        }
    };
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let hangup = async {
            match &mut asked {
                Some(asked) => asked.recv().await,
                None => std::future::pending().await,
            }
        };
        let looked = tokio::select! {
            _ = hangup => {
                tracing::info!(path = %follower.path.display(), "SIGHUP: the configuration is loaded again");
                follower.load()
            }
            _ = every.tick() => follower.look(),
        };
        match looked {
            Looked::Unchanged => {}
            Looked::Broken(error) => {
                let why = error.to_string();
                tracing::warn!(why, "the configuration cannot be used: the settings in force stay");
            }
            Looked::Decided(reload) => {
                for applied in &reload.applied {
                    tracing::info!(
                        setting = applied.setting,
                        was = applied.was,
                        is = applied.is,
                        "a changed setting is in force"
                    );
                }
                for refused in &reload.refused {
                    tracing::warn!(
                        setting = refused.setting,
                        why = refused.sentence,
                        "a changed setting is refused"
                    );
                }
                if !reload.applied.is_empty() {
                    apply(&reload.stack);
                }
            }
        }
    }
}
