//! The account of availability as numbers. They are gauges, since the account outlives the process.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tier0_wire::AvailabilityBody;

use super::Seconds;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWay {
    datastore: String,
    /// Empty for the list of the nodes.
    route: String,
    access: String,
}

/// What is shown of it.
#[derive(Default)]
pub struct AvailabilityMetrics {
    down: Family<OfWay, Seconds>,
    held: Family<OfWay, Seconds>,
    unknown: Family<OfWay, Seconds>,
    served: Family<OfWay, Seconds>,
    windows: Family<OfWay, Gauge>,
    errors: Family<OfWay, Gauge>,
    budget_left: Seconds,
    objective: Seconds,
    single_copy: Seconds,
}

impl AvailabilityMetrics {
    /// Under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tier0_downtime_seconds",
            "For how long nobody was served on a way, since the account began",
            self.down.clone(),
        );
        registry.register(
            "tier0_held_seconds",
            "For how long being served took more than a tenth of a second",
            self.held.clone(),
        );
        registry.register(
            "tier0_unprobed_seconds",
            "For how long nobody probed a way, which is never called available",
            self.unknown.clone(),
        );
        registry.register(
            "tier0_served_seconds",
            "For how long somebody was served on a way",
            self.served.clone(),
        );
        registry.register(
            "tier0_downtime_windows",
            "How many stretches there were in which nobody was served on a way",
            self.windows.clone(),
        );
        registry.register(
            "tier0_probe_errors",
            "Probes that met an error or had no answer",
            self.errors.clone(),
        );
        registry.register(
            "tier0_error_budget_left_seconds",
            "What is left of the downtime that a year may have; below zero where it is spent",
            self.budget_left.clone(),
        );
        registry.register(
            "tier0_error_budget_seconds",
            "The downtime that a year may have",
            self.objective.clone(),
        );
        registry.register(
            "tier0_single_copy_seconds",
            "For how long a datastore was exposed, since the account began",
            self.single_copy.clone(),
        );
    }

    /// As the account stands.
    pub fn take_in(&self, body: &AvailabilityBody) {
        self.budget_left.set(body.budget_left_ms as f64 / 1000.0);
        self.objective.set(body.objective_ms_a_year as f64 / 1000.0);
        self.single_copy.set(body.exposed_ms as f64 / 1000.0);
        for way in &body.ways {
            let of = OfWay {
                datastore: way.datastore.clone(),
                route: way.route.clone().unwrap_or_default(),
                access: way.access.clone(),
            };
            let set = |family: &Family<OfWay, Seconds>, milliseconds: u64| {
                family.get_or_create(&of).set(milliseconds as f64 / 1000.0);
            };
            set(&self.down, way.down_ms);
            set(&self.held, way.held_ms);
            set(&self.unknown, way.unknown_ms);
            set(&self.served, way.served_ms);
            self.windows.get_or_create(&of).set(way.windows_total as i64);
            self.errors.get_or_create(&of).set(way.errors as i64);
        }
    }
}
