//! Epoch, revision, step, and the stamp they make: what an agent obeys and what it refuses.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Lineage;

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(u64);

        impl $type {
            /// The first value.
            pub const FIRST: $type = $type(1);

            /// A value that was read from a record, a state file or a message.
            pub fn read(value: u64) -> Self {
                $type(value)
            }

            /// The value after this one.
            #[must_use]
            pub fn next(self) -> Self {
                $type(self.0 + 1)
            }

            /// The bare number, for storing and printing.
            pub fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter!(
    /// Fencing number: one more at every change of writer.
    Epoch
);
counter!(
    /// One more at every change of the authority record.
    Revision
);
counter!(
    /// The place of a command among the commands of one revision.
    StepNumber
);

/// What every command carries. Commands of one node are obeyed in the order of their stamps (R1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The store's unbroken history.
    pub lineage: Lineage,
    /// The epoch of the record under which the command was given.
    pub epoch: Epoch,
    /// The revision of the record under which the command was given.
    pub revision: Revision,
    /// The place among the commands of that revision.
    pub step: StepNumber,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.revision, self.step)
    }
}

/// How a stamp stands to the newest one that was obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampVerdict {
    /// Newer: obey.
    Newer,
    /// The same command again: answer from its outcome, or do it again where there is none.
    Same,
    /// Older: refuse.
    Older,
    /// Of another history: refuse until an operator adopts it.
    ForeignLineage,
}

impl Stamp {
    /// How `self` stands to `obeyed`.
    pub fn against(&self, obeyed: &Stamp) -> StampVerdict {
        if self.lineage != obeyed.lineage {
            return StampVerdict::ForeignLineage;
        }
        let key = |s: &Stamp| (s.epoch, s.revision, s.step);
        match key(self).cmp(&key(obeyed)) {
            std::cmp::Ordering::Greater => StampVerdict::Newer,
            std::cmp::Ordering::Equal => StampVerdict::Same,
            std::cmp::Ordering::Less => StampVerdict::Older,
        }
    }
}

/// The newest record that an agent has heard of. Durable at the agent; it only grows (R2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heard {
    /// The store's unbroken history.
    pub lineage: Lineage,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its revision.
    pub revision: Revision,
}

impl Heard {
    /// Whether `self` is from the same history and not older than `other`.
    pub fn covers(&self, other: &Heard) -> bool {
        self.lineage == other.lineage
            && (self.epoch, self.revision) >= (other.epoch, other.revision)
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} revision {}", self.epoch, self.revision)
    }
}
