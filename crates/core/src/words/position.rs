//! Places in a replication stream. A bare number of one stream means nothing in another, so the
//! types that can be compared carry the identity of their stream.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an LSN: expected two hexadecimal numbers of at most 32 bits, as in 16/B374D848"
)]
pub struct InvalidLsn(pub String);

/// A byte position in PostgreSQL's WAL, printed as PostgreSQL prints it (`16/B374D848`).
///
/// Ordered only because positions on one timeline are; compare across nodes with [`WalPosition`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(u64);

impl Lsn {
    /// PostgreSQL's InvalidXLogRecPtr.
    pub const ZERO: Lsn = Lsn(0);

    /// From a number of bytes since the start of WAL.
    pub fn from_bytes(bytes: u64) -> Self {
        Lsn(bytes)
    }

    /// Bytes since the start of WAL.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many bytes `self` is ahead of `other`; zero if it is not.
    pub fn ahead_of(self, other: Lsn) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;
    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let invalid = || InvalidLsn(text.chars().take(40).collect());
        let part = |part: &str| {
            let plain = !part.is_empty()
                && part.len() <= 8
                && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if plain { u64::from_str_radix(part, 16).ok() } else { None }
        };
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        let (high, low) = (part(high).ok_or_else(invalid)?, part(low).ok_or_else(invalid)?);
        Ok(Lsn((high << 32) | low))
    }
}

impl TryFrom<String> for Lsn {
    type Error = InvalidLsn;
    fn try_from(text: String) -> Result<Self, InvalidLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

/// PostgreSQL's system identifier: which cluster a data directory was made as. Kept as text since
/// JSON numbers lose its last digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub String);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// PostgreSQL's timeline number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in one cluster's WAL on one timeline. Places of different clusters or timelines cannot
/// be compared, and what cannot be compared is refused, never guessed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WalPosition {
    /// Which cluster.
    pub system: SystemId,
    /// Which timeline.
    pub timeline: Timeline,
    /// Where on it.
    pub lsn: Lsn,
}

impl PartialOrd for WalPosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self.system == other.system && self.timeline == other.timeline {
            Some(self.lsn.cmp(&other.lsn))
        } else {
            None
        }
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on timeline {}", self.lsn, self.timeline)
    }
}

/// Redis' replication id: which stream an offset belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicationId(pub String);

impl fmt::Display for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in one Redis replication stream, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RedisPosition {
    /// Which stream.
    pub replication: ReplicationId,
    /// Where in it.
    pub offset: u64,
}

impl PartialOrd for RedisPosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self.replication == other.replication {
            Some(self.offset.cmp(&other.offset))
        } else {
            None
        }
    }
}

impl fmt::Display for RedisPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.offset)
    }
}
