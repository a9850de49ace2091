//! How old the oldest thing is that a standby has not replayed.
//!
//! The specification measures lag as `now() - pg_last_xact_replay_timestamp()`, which grows without
//! end on an idle stack though nothing is missing. Here the writer's flush position is sampled with
//! the time of its report; lag is the age of the oldest sample that the standby has not replayed,
//! and zero when it has replayed the newest. Resolution is the interval between reports.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::words::{DatastoreName, Lsn, Moment};

/// Samples kept per datastore: minutes of reports, so that a lag beyond the limits that matter is
/// still a lower bound.
const SAMPLES_MOST: usize = 3_000;

/// Samples of the writers' flush positions.
#[derive(Debug, Clone, Default)]
pub struct Lag {
    samples: BTreeMap<DatastoreName, VecDeque<(Moment, Lsn)>>,
}

impl Lag {
    /// The writer's node has flushed up to here.
    pub fn flushed(&mut self, datastore: &DatastoreName, at: Moment, lsn: Lsn) {
        let samples = self.samples.entry(datastore.clone()).or_default();
        if samples.back().is_some_and(|(_, newest)| *newest > lsn) {
            // Another writer, or one that was rewound: what was sampled before says nothing.
            samples.clear();
        }
        if samples.back().is_none_or(|(_, newest)| *newest < lsn) {
            samples.push_back((at, lsn));
        }
        while samples.len() > SAMPLES_MOST {
            samples.pop_front();
        }
    }

    /// How old the oldest sample is that is not replayed.
    pub fn of(&self, datastore: &DatastoreName, replayed: Lsn, now: Moment) -> Option<Duration> {
        let samples = self.samples.get(datastore)?;
        let oldest = samples.iter().find(|(_, lsn)| *lsn > replayed);
        Some(oldest.map(|(at, _)| now.since(*at)).unwrap_or_default())
    }

    /// The samples of a datastore are of an earlier writer.
    pub fn forget(&mut self) {
        self.samples.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> DatastoreName {
        "main".parse().unwrap()
    }

    fn second(number: u64) -> Moment {
        Moment::from_micros(number * 1_000_000)
    }

    #[test]
    fn idle_for_an_hour_is_no_lag() {
        let mut lag = Lag::default();
        lag.flushed(&name(), second(1), Lsn::from_bytes(100));
        let now = second(3_600);
        assert_eq!(lag.of(&name(), Lsn::from_bytes(100), now), Some(Duration::ZERO));
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_thing_that_is_missing() {
        let mut lag = Lag::default();
        for number in 1..=10 {
            lag.flushed(&name(), second(number), Lsn::from_bytes(number * 100));
        }
        let now = second(10);
        assert_eq!(lag.of(&name(), Lsn::from_bytes(650), now), Some(Duration::from_secs(3)));
        assert_eq!(lag.of(&name(), Lsn::from_bytes(1000), now), Some(Duration::ZERO));
    }

    #[test]
    fn unknown_before_the_writer_was_seen_and_after_it_went_back() {
        let mut lag = Lag::default();
        assert_eq!(lag.of(&name(), Lsn::ZERO, second(1)), None);
        lag.flushed(&name(), second(1), Lsn::from_bytes(500));
        lag.flushed(&name(), second(9), Lsn::from_bytes(400));
        assert_eq!(lag.of(&name(), Lsn::ZERO, second(10)), Some(Duration::from_secs(1)));
    }
}
