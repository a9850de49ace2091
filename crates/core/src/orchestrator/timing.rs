//! How long answers take: of agents to polls, and of commits to the agents' own probes. The detection
//! window is never shorter than nearly all of them take, and what would have fired falsely is said.
//! Which answers count is `Orchestrator::timed`'s to say.
//!
//! A histogram with buckets an eighth of a power of two wide: a quantile is the upper edge of its
//! bucket, at most an eighth too long. What is old fades: counts are halved from time to time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::words::{Epoch, Moment, NodeId, Region};

/// A bucket is one of this many between two powers of two of microseconds.
const PARTS: u64 = 8;

/// From this many on every count is halved: an hour of one agent's polls at the usual interval.
const HALVED_AT: u64 = 18_000;

/// How long a silence that ended by itself is spoken of.
const SPOKEN_OF: Duration = Duration::from_secs(3_600);

/// A histogram of durations.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    counts: Vec<u64>,
    total: u64,
}

/// What a histogram comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles {
    /// How many durations it rests on.
    pub count: u64,
    /// Half took at most this long.
    pub p50: Duration,
    /// All but one of a hundred.
    pub p99: Duration,
    /// All but one of a thousand; with fewer than that, all.
    pub p999: Duration,
}

impl Durations {
    /// Count one.
    pub fn note(&mut self, took: Duration) {
        let bucket = bucket(took);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        if self.total >= HALVED_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// What it comes to; `None` before anything was counted.
    pub fn quantiles(&self) -> Option<Quantiles> {
        (self.total > 0).then(|| Quantiles {
            count: self.total,
            p50: self.quantile(500),
            p99: self.quantile(990),
            p999: self.quantile(999),
        })
    }

    /// So many of a thousand took at most this long.
    fn quantile(&self, of_thousand: u64) -> Duration {
        let rank = (self.total * of_thousand).div_ceil(1_000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_edge(bucket);
            }
        }
        Duration::ZERO
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(PARTS);
    // At least three, since a part is the eighth of a power of two.
    let power = u64::from(micros.ilog2());
    let part = (micros >> (power - 3)) - PARTS;
    ((power - 3) * PARTS + part) as usize
}

fn upper_edge(bucket: usize) -> Duration {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    Duration::from_micros((PARTS + part + 1) << power)
}

/// A writer's region that looked dead from everywhere and was not moved away from, and that was
/// heard again: the same run of its agent, so nothing had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FalseAlarm {
    /// Which region.
    pub region: Region,
    /// For how long its agent was not heard.
    pub silent: Duration,
    /// When it was heard again.
    pub at: Moment,
}

/// Everything that was timed.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    polls: BTreeMap<Region, Durations>,
    probes: BTreeMap<NodeId, Durations>,
    suspected: BTreeMap<Region, (String, Epoch)>,
    false_alarm: Option<FalseAlarm>,
}

impl Timing {
    /// An agent answered a poll.
    pub(super) fn polled(&mut self, region: Region, took: Duration) {
        self.polls.entry(region).or_default().note(took);
    }

    /// A commit of an agent's probe came back.
    pub(super) fn probed(&mut self, node: &NodeId, took: Duration) {
        self.probes.entry(node.clone()).or_default().note(took);
    }

    /// A region looks dead from everywhere; `run` is the run of its agent that was heard last.
    pub(super) fn suspect(&mut self, region: &Region, run: &str, epoch: Epoch) {
        self.suspected.insert(region.clone(), (run.to_owned(), epoch));
    }

    /// An agent is heard again after so long.
    pub(super) fn heard(
        &mut self,
        now: Moment,
        region: &Region,
        run: &str,
        epoch: Option<Epoch>,
        silent: Duration,
    ) {
        let Some((suspected, at)) = self.suspected.remove(region) else { return };
        if suspected == run && Some(at) == epoch {
            let alarm = FalseAlarm { region: region.clone(), silent, at: now };
            let longer =
                |known: &FalseAlarm| now.since(known.at) < SPOKEN_OF && known.silent > alarm.silent;
            if !self.false_alarm.as_ref().is_some_and(longer) {
                self.false_alarm = Some(alarm);
            }
        }
    }

    /// Round trips of polls by region.
    pub fn polls(&self) -> impl Iterator<Item = (&Region, Quantiles)> {
        self.polls.iter().filter_map(|(region, durations)| Some((region, durations.quantiles()?)))
    }

    /// Commits of probes by node: the slower of the two ways.
    pub fn probes(&self) -> impl Iterator<Item = (&NodeId, Quantiles)> {
        self.probes.iter().filter_map(|(node, durations)| Some((node, durations.quantiles()?)))
    }

    /// The region whose agent takes longest, all but one time of a thousand.
    pub fn slowest(&self) -> Option<(&Region, Quantiles)> {
        self.polls().max_by_key(|(_, quantiles)| quantiles.p999)
    }

    /// The detection window in force where this one is set.
    pub fn window(&self, set: Duration) -> Duration {
        self.slowest().map_or(set, |(_, quantiles)| quantiles.p999.max(set))
    }

    /// The longest silence of the last hour that a move would have been wrong about.
    pub fn false_alarm(&self, now: Moment) -> Option<&FalseAlarm> {
        self.false_alarm.as_ref().filter(|alarm| now.since(alarm.at) < SPOKEN_OF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quantile_is_at_most_an_eighth_too_long_and_never_too_short() {
        for micros in [1, 8, 9, 63, 64, 65, 1_000, 77_777, 1_000_000, 3_600_000_000] {
            let took = Duration::from_micros(micros);
            let mut durations = Durations::default();
            durations.note(took);
            let found = durations.quantiles().unwrap();
            assert_eq!((found.count, found.p50), (1, found.p999));
            assert!(found.p50 > took, "{took:?} is {found:?}");
            let most = (took + took / 8).max(Duration::from_micros(9)) + Duration::from_micros(1);
            assert!(found.p50 <= most, "{took:?} is {found:?}");
        }
    }

    #[test]
    fn one_in_a_thousand_does_not_move_the_window_and_two_do() {
        let mut timing = Timing::default();
        let region: Region = "region2".parse().unwrap();
        for _ in 0..1_999 {
            timing.polled(region.clone(), 20 * MS);
        }
        timing.polled(region.clone(), 3_000 * MS);
        assert_eq!(timing.window(1_000 * MS), 1_000 * MS);
        for _ in 0..2 {
            timing.polled(region.clone(), 3_000 * MS);
        }
        assert!(timing.window(1_000 * MS) >= 3_000 * MS);
    }

    #[test]
    fn what_is_old_fades() {
        let mut durations = Durations::default();
        for _ in 0..1_000 {
            durations.note(2_000 * MS);
        }
        assert!(durations.quantiles().unwrap().p50 >= 2_000 * MS);
        for _ in 0..400_000 {
            durations.note(10 * MS);
        }
        let found = durations.quantiles().unwrap();
        assert!(found.p999 < 20 * MS, "{found:?}");
        assert!(found.count < HALVED_AT);
    }
}
