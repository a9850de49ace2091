//! Time as the core knows it: a value that somebody else read from a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of the holder's own monotonic clock, in microseconds since that process started.
///
/// Moments of two processes cannot be compared; nothing in tier0 sends one to another process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Moment(u64);

impl Moment {
    /// The start of the process.
    pub const ZERO: Moment = Moment(0);

    /// A moment this long after the start of the process.
    pub fn from_micros(micros: u64) -> Self {
        Moment(micros)
    }

    /// Microseconds since the start of the process.
    pub fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus a duration.
    pub fn after(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(wait.as_micros() as u64))
    }
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC. For people and history only: no decision
/// compares two of them, but for the end of what a person set for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMillis(pub i64);

impl fmt::Display for WallMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
