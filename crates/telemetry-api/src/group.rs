//! Readings of several requests in one insert, hence behind one commit.
//!
//! A commit waits for the other region. One commit for each request would make the round trip between
//! the regions the limit of the service; so whatever waits when a session becomes free shares its
//! insert. Nothing is delayed for the sake of company: a request that is alone goes alone.

use std::sync::Arc;

use crate::reading::{Batch, Reading};

/// The most readings in one insert.
pub(crate) const MOST_IN_GROUP: usize = 4_000;

/// Batches that share an insert: all of it is stored, or nothing.
#[derive(Debug)]
pub(crate) struct Group {
    batches: Vec<Arc<Batch>>,
    /// Which batch, and which reading of it, in the order of device and time: two inserts that
    /// overlap lock the same rows in the same order.
    order: Vec<(usize, usize)>,
}

impl Group {
    /// These batches together.
    pub(crate) fn of(batches: Vec<Arc<Batch>>) -> Group {
        let mut order: Vec<(usize, usize)> = batches
            .iter()
            .enumerate()
            .flat_map(|(batch, of)| (0..of.readings().len()).map(move |reading| (batch, reading)))
            .collect();
        // Stable: of the same reading in two batches the one that came first is the one stored.
        order.sort_by_key(|place| {
            let reading = at(&batches, *place);
            (&reading.device_id, reading.timestamp_utc)
        });
        Group { batches, order }
    }

    /// How many readings it has.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Its readings, ordered by device and time.
    pub(crate) fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.order.iter().map(|place| at(&self.batches, *place))
    }

    /// How many readings of each batch are new, where `fresh` says it of each reading in order.
    pub(crate) fn shares(&self, fresh: &[bool]) -> Vec<u64> {
        let mut shares = vec![0; self.batches.len()];
        for ((batch, _), _) in self.order.iter().zip(fresh).filter(|(_, fresh)| **fresh) {
            shares[*batch] += 1;
        }
        shares
    }
}

fn at(batches: &[Arc<Batch>], (batch, reading): (usize, usize)) -> &Reading {
    &batches[batch].readings()[reading]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn batch(readings: &[(&str, u32)]) -> Arc<Batch> {
        let body: Vec<serde_json::Value> = readings
            .iter()
            .map(|(device, second)| {
                serde_json::json!({
                    "device_id": device, "device_type": "turbine", "site_id": "north",
                    "timestamp_utc": format!("2026-11-23T10:00:{second:02}Z"),
                    "metrics": {}, "status": {},
                })
            })
            .collect();
        Arc::new(Batch::parse(serde_json::Value::from(body).to_string().as_bytes()).unwrap())
    }

    #[test]
    fn readings_of_all_are_ordered_and_counted_for_their_own_batch() {
        let group = Group::of(vec![batch(&[("b", 1), ("c", 1)]), batch(&[("b", 1), ("a", 9)])]);
        let names: Vec<&str> = group.readings().map(|one| one.device_id.as_str()).collect();
        assert_eq!(names, ["a", "b", "b", "c"]);
        assert_eq!(group.len(), 4);
        // The first `b` belongs to the first batch.
        assert_eq!(group.shares(&[true, true, false, true]), [2, 1]);
        assert_eq!(group.shares(&[false; 4]), [0, 0]);
    }
}
