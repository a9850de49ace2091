//! What is counted, and its text for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::backend::Written;
use crate::group::MOST_IN_GROUP;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Stored,
    NotStored,
    Unknown,
    Rejected,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

/// Counters of one service.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    batches: Family<ByOutcome, Counter>,
    readings: Counter,
    duplicates: Counter,
    write_seconds: Histogram,
    cache_skipped: Counter,
    group_readings: Histogram,
}

impl Metrics {
    /// Counters that stand at zero.
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("telemetry");
        let batches = Family::default();
        registry.register("batches", "Batches by outcome", batches.clone());
        let readings = Counter::default();
        registry.register("readings_stored", "Readings stored anew", readings.clone());
        let duplicates = Counter::default();
        registry.register(
            "readings_duplicate",
            "Readings that were stored before",
            duplicates.clone(),
        );
        let write_seconds =
            Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]);
        registry.register_with_unit(
            "write",
            "Time from a valid batch to its outcome",
            Unit::Seconds,
            write_seconds.clone(),
        );
        let cache_skipped = Counter::default();
        registry.register(
            "cache_skipped",
            "Batches that the cache did not take",
            cache_skipped.clone(),
        );
        let group_readings =
            Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, MOST_IN_GROUP as f64]);
        registry.register(
            "group_readings",
            "Readings that share one commit",
            group_readings.clone(),
        );
        Metrics {
            registry,
            batches,
            readings,
            duplicates,
            write_seconds,
            cache_skipped,
            group_readings,
        }
    }

    /// Count a batch.
    pub(crate) fn batch(&self, written: &Written, took: Duration) {
        let outcome = match written {
            Written::Stored { new, duplicates } => {
                self.readings.inc_by(*new);
                self.duplicates.inc_by(*duplicates);
                Outcome::Stored
            }
            Written::NotStored { .. } => Outcome::NotStored,
            Written::Unknown { .. } => Outcome::Unknown,
            Written::Rejected { .. } => Outcome::Rejected,
        };
        self.batches.get_or_create(&ByOutcome { outcome }).inc();
        self.write_seconds.observe(took.as_secs_f64());
    }

    /// Count a group.
    pub(crate) fn group(&self, readings: usize) {
        self.group_readings.observe(readings as f64);
    }

    /// Count a batch that is stored and not in the cache.
    pub(crate) fn cache_skipped(&self) {
        self.cache_skipped.inc();
    }

    /// The text for Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string cannot fail");
        out
    }
}
