//! The last position a master was seen at, beside its data. A Redis with an append-only file
//! forgets its replication id when it ends, so after a crash this is all that tells how far the old
//! side was ahead. A lower bound: what was written after the last look is not in it.

use std::fs;
use std::path::PathBuf;

use tier0_core::observe::RedisRole;
use tier0_core::words::{RedisPosition, ReplicationId};

use crate::settings::Place;

/// A role and a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastSeen {
    pub role: RedisRole,
    pub position: RedisPosition,
}

fn file(place: &Place) -> PathBuf {
    place.directory.join("tier0-last-seen")
}

impl LastSeen {
    /// Write it down. Not synced: losing it costs a number in a report.
    pub fn write(&self, place: &Place) {
        let role = match self.role {
            RedisRole::Master => "master",
            RedisRole::Replica => "replica",
        };
        let text = format!("{role} {} {}\n", self.position.replication, self.position.offset);
        let new = place.directory.join("tier0-last-seen.new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, file(place)));
        if let Err(error) = written {
            tracing::debug!(%error, "the last seen position could not be written");
        }
    }

    pub fn read(place: &Place) -> Option<Self> {
        Self::parse(&fs::read_to_string(file(place)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let role = match words.next()? {
            "master" => RedisRole::Master,
            "replica" => RedisRole::Replica,
            _ => return None,
        };
        let replication = ReplicationId(words.next()?.to_owned());
        let offset = words.next()?.parse().ok()?;
        Some(LastSeen { role, position: RedisPosition { replication, offset } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}") {
            let _ = LastSeen::parse(&text);
        }
    }
}
