//! How long clients waited: every write's time from when it was *due*, and the largest gaps.
//!
//! A writer that is stuck sends nothing, so times from sending would hide exactly what matters.

use std::time::Duration;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

/// Shorter waits are only counted, not kept one by one.
const NOTABLE: Duration = Duration::from_millis(20);

/// One wait of one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When the write was due, since the start of the traffic.
    pub due: Duration,
    /// When it was acknowledged.
    pub until: Duration,
}

impl Gap {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.until.saturating_sub(self.due)
    }
}

/// The times of one path.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
    largest: Option<Gap>,
    notable: Vec<Gap>,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Latencies> {
        let histogram = Histogram::new_with_max(600_000_000, 3)
            .map_err(|error| anyhow!("make a histogram: {error}"))?;
        Ok(Latencies { histogram, largest: None, notable: Vec::new() })
    }

    /// Count one acknowledged write.
    pub fn record(&mut self, gap: Gap) {
        let micros = u64::try_from(gap.length().as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros);
        if self.largest.is_none_or(|largest| gap.length() > largest.length()) {
            self.largest = Some(gap);
        }
        if gap.length() <= NOTABLE {
            return;
        }
        match self.notable.last_mut() {
            // Writes that queued up behind a gap belong to it. Of those that were under way together
            // the one that waited longest need not be the first to be answered.
            Some(last) if gap.due < last.until => {
                if gap.length() > last.length() {
                    *last = gap;
                }
            }
            Some(_) | None => self.notable.push(gap),
        }
    }

    /// Add what another writer of the same path counted.
    pub fn merge(&mut self, other: &Latencies) -> Result<()> {
        self.histogram
            .add(&other.histogram)
            .map_err(|error| anyhow!("add up histograms: {error}"))?;
        self.notable.extend(&other.notable);
        self.largest = [self.largest, other.largest].into_iter().flatten().max_by_key(Gap::length);
        Ok(())
    }

    /// The time that `percent` of the writes did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_percentile(percent))
    }

    /// The largest gap.
    pub fn largest(&self) -> Option<Gap> {
        self.largest
    }

    /// The largest gap that overlaps a stretch of time, among those above 20 ms.
    pub fn largest_between(&self, from: Duration, to: Duration) -> Option<Gap> {
        self.notable
            .iter()
            .filter(|gap| gap.due <= to && gap.until >= from)
            .max_by_key(|gap| gap.length())
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(due: u64, until: u64) -> Gap {
        Gap { due: Duration::from_millis(due), until: Duration::from_millis(until) }
    }

    #[test]
    fn writes_that_queued_behind_a_gap_do_not_count_as_gaps_of_their_own() {
        let mut latencies = Latencies::new().unwrap();
        for one in [gap(0, 1), gap(100, 300), gap(120, 301), gap(400, 401), gap(500, 540)] {
            latencies.record(one);
        }
        assert_eq!(latencies.largest(), Some(gap(100, 300)));
        assert_eq!(latencies.notable, [gap(100, 300), gap(500, 540)]);
        let later = latencies.largest_between(Duration::from_millis(450), Duration::from_secs(1));
        assert_eq!(later, Some(gap(500, 540)));
    }
}
