//! What is counted and measured, in the names that the specification's queries use, and more.
//! Numbers of single nodes are in `nodes.rs`.

mod availability;
mod nodes;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tier0_core::orchestrator::{Activity, Ended, Now, Orchestrator};
use tier0_core::readiness::Level;
use tier0_core::record::AutomaticMode;
use tier0_wire::{DetectionStatus, OperationBody, QuantilesBody, StatusBody};

use crate::readiness::Checked;
use crate::status;

use availability::AvailabilityMetrics;
use nodes::{NodeMetrics, SeenNode};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStep {
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNode {
    datastore: String,
    region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDatastore {
    datastore: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProtectionMode {
    datastore: String,
    mode: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPolls {
    region: String,
    quantile: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProbes {
    datastore: String,
    region: String,
    quantile: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
    result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRegion {
    region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRow {
    row: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMode {
    mode: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFinding {
    datastore: String,
    code: String,
    level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMembers {
    datastore: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBuild {
    version: String,
}

type Seconds = Gauge<f64, AtomicU64>;

const LEVELS: [Level; 4] = [Level::Pass, Level::Warn, Level::Unknown, Level::Fail];

/// The state that is shown beside the counters, as of one moment.
pub struct Snapshot {
    status: StatusBody,
    acts: bool,
    check: Option<Checked>,
    nodes: Vec<SeenNode>,
}

impl Snapshot {
    /// What the core knows; `None` before the record was read. `check` is what the readiness of
    /// the other region says.
    pub fn of(core: &Orchestrator, now: &Now, check: Option<Checked>) -> Option<Self> {
        Some(Snapshot {
            status: status::status(core, now)?,
            acts: core.is_driving(),
            check,
            nodes: nodes::seen(core, now),
        })
    }
}

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Mutex<Registry>,
    failovers: Counter,
    operations: Family<OfKind, Counter>,
    refused: Family<OfCode, Counter>,
    duration: Family<OfStep, Seconds>,
    durations: Histogram,
    last: Gauge<i64, AtomicI64>,
    epoch: Gauge,
    revision: Gauge,
    writer: Family<OfRegion, Gauge>,
    protection: Family<OfDatastore, Gauge>,
    protection_mode: Family<OfProtectionMode, Gauge>,
    exposed_seconds: Seconds,
    behind: Family<OfNode, Gauge>,
    behind_seconds: Family<OfNode, Seconds>,
    agent_up: Family<OfRegion, Gauge>,
    frozen: Gauge,
    acting: Gauge,
    near_misses: Family<OfRow, Counter>,
    automatic: Family<OfMode, Gauge>,
    window: Seconds,
    round_trips: Family<OfPolls, Seconds>,
    write_probes: Family<OfProbes, Seconds>,
    members: Family<OfMembers, Gauge>,
    ready: Gauge,
    readiness: Family<OfFinding, Gauge>,
    nodes: NodeMetrics,
    /// The account of availability.
    pub availability: AvailabilityMetrics,
}

impl Metrics {
    /// All at their first value.
    pub fn new(version: &str) -> Self {
        let metrics = Metrics {
            registry: Mutex::new(Registry::default()),
            failovers: Counter::default(),
            operations: Family::default(),
            refused: Family::default(),
            duration: Family::default(),
            durations: Histogram::new(exponential_buckets(0.02, 1.6, 14)),
            last: Gauge::default(),
            epoch: Gauge::default(),
            revision: Gauge::default(),
            writer: Family::default(),
            protection: Family::default(),
            protection_mode: Family::default(),
            exposed_seconds: Seconds::default(),
            behind: Family::default(),
            behind_seconds: Family::default(),
            agent_up: Family::default(),
            frozen: Gauge::default(),
            acting: Gauge::default(),
            near_misses: Family::default(),
            automatic: Family::default(),
            window: Seconds::default(),
            round_trips: Family::default(),
            write_probes: Family::default(),
            members: Family::default(),
            ready: Gauge::default(),
            readiness: Family::default(),
            nodes: NodeMetrics::default(),
            availability: AvailabilityMetrics::default(),
        };
        metrics.register(version);
        metrics
    }

    fn register(&self, version: &str) {
        let mut registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.register(
            "failover",
            "Changes of the writer that moved it",
            self.failovers.clone(),
        );
        registry.register(
            "failover_duration_seconds",
            "The last change of the writer, by step; step=total is all of it",
            self.duration.clone(),
        );
        registry.register(
            "tier0_failover_seconds",
            "Changes of the writer, from acceptance to answer",
            self.durations.clone(),
        );
        registry.register(
            "failover_last_timestamp",
            "When the writer was last moved, in seconds since 1970",
            self.last.clone(),
        );
        registry.register(
            "tier0_operations",
            "Operations that ended, by kind and result",
            self.operations.clone(),
        );
        registry.register("tier0_refusals", "Requests refused, by code", self.refused.clone());
        registry.register("tier0_epoch", "The record's epoch", self.epoch.clone());
        registry.register("tier0_revision", "The record's revision", self.revision.clone());
        registry.register("tier0_writer", "1 for the writer's region", self.writer.clone());
        registry.register(
            "tier0_protection",
            "1 for the state of protection that a datastore is in",
            self.protection.clone(),
        );
        registry.register(
            "tier0_protection_mode",
            "1 for what commits of a datastore do without a standby",
            self.protection_mode.clone(),
        );
        registry.register(
            "tier0_exposed_seconds",
            "For how long there has been a single copy; 0 while there is not",
            self.exposed_seconds.clone(),
        );
        registry.register(
            "tier0_replication_lag_bytes",
            "Bytes that a node is behind the writer's node; absent where nobody knows",
            self.behind.clone(),
        );
        registry.register(
            "pg_replication_lag_seconds",
            "Age of the oldest thing a standby has not replayed; 0 when it has replayed all",
            self.behind_seconds.clone(),
        );
        registry.register(
            "tier0_agent_up",
            "1 while the agent of a region answers",
            self.agent_up.clone(),
        );
        registry.register(
            "tier0_frozen",
            "1 while nothing at all is done, because the store is older than what an agent heard",
            self.frozen.clone(),
        );
        registry.register(
            "tier0_acting",
            "1 while this orchestrator is the one that acts",
            self.acting.clone(),
        );
        registry.register(
            "tier0_near_misses",
            "Moves of a dead or doubtful writer that were held back, by the row that did",
            self.near_misses.clone(),
        );
        registry.register(
            "tier0_automatic",
            "1 for what is set of automatic moves: armed, observe or off",
            self.automatic.clone(),
        );
        registry.register(
            "tier0_detection_window_seconds",
            "For how long a region must be silent before it counts as dead",
            self.window.clone(),
        );
        registry.register(
            "tier0_round_trip_seconds",
            "Round trips of polls to a region's agent, by quantile; what is old fades",
            self.round_trips.clone(),
        );
        registry.register(
            "tier0_write_probe_seconds",
            "Commits of an agent's own probes, by quantile; what is old fades",
            self.write_probes.clone(),
        );
        registry.register(
            "tier0_takeover_members",
            "Nodes that are proven to hold every acknowledged write, hence may be promoted",
            self.members.clone(),
        );
        registry.register(
            "tier0_ready",
            "1 if a commanded switch to the other region would begin now",
            self.ready.clone(),
        );
        registry.register(
            "tier0_readiness",
            "1 for the level that a check is at, by its code; datastore is empty for the stack",
            self.readiness.clone(),
        );
        self.nodes.register(&mut registry);
        self.availability.register(&mut registry);
        let build: Family<OfBuild, Gauge> = Family::default();
        build.get_or_create(&OfBuild { version: version.to_owned() }).set(1);
        registry.register("tier0_build_info", "The build", build);
    }

    /// An operation ended.
    pub fn ended(&self, activity: &Activity, ended: &Ended, body: &OperationBody) {
        let of = OfKind { kind: activity.kind.to_string(), result: body.result.clone() };
        self.operations.get_or_create(&of).inc();
        let moved = match ended {
            Ended::Succeeded | Ended::WithExceptions { .. } => true,
            Ended::Refused { .. }
            | Ended::Aborted { .. }
            | Ended::Failed { .. }
            | Ended::Unknown { .. } => false,
        };
        if !activity.kind.moves_writer() || !moved {
            return;
        }
        self.failovers.inc();
        self.durations.observe(body.total_failover_time);
        self.last_move(body);
    }

    /// The newest move of the writer, also one of an earlier run: only counters begin anew.
    pub fn last_move(&self, body: &OperationBody) {
        self.duration.clear();
        for (step, seconds) in &body.steps {
            self.duration.get_or_create(&OfStep { step: step.clone() }).set(*seconds);
        }
        let total = OfStep { step: "total".to_owned() };
        self.duration.get_or_create(&total).set(body.total_failover_time);
        if let Ok(ended) = body.timestamp.parse::<jiff::Timestamp>() {
            self.last.set(ended.as_second());
        }
    }

    /// A request was refused.
    pub fn refused(&self, code: &str) {
        self.refused.get_or_create(&OfCode { code: code.to_owned() }).inc();
    }

    /// The writer was found dead, or nearly, and was not moved.
    pub fn held_back(&self, row: &str) {
        self.near_misses.get_or_create(&OfRow { row: row.to_owned() }).inc();
    }

    /// The text of `/metrics`, with the state as it is now.
    pub fn text(&self, snapshot: Option<&Snapshot>) -> String {
        // Held over both, so that nobody reads a family that was just cleared.
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(snapshot) = snapshot {
            self.take_in(&snapshot.status);
            self.acting.set(i64::from(snapshot.acts));
            self.take_in_check(snapshot.check.as_ref());
            self.nodes.take_in(&snapshot.nodes);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// One series for each check and level: where a check says several things, its worst.
    fn take_in_check(&self, check: Option<&Checked>) {
        self.readiness.clear();
        self.ready.set(i64::from(check.is_some_and(|check| check.ready)));
        let mut worst: BTreeMap<(String, &str), Level> = BTreeMap::new();
        for finding in check.map(|check| check.findings.as_slice()).unwrap_or_default() {
            let datastore = finding.datastore.as_ref().map(ToString::to_string);
            let of = (datastore.unwrap_or_default(), finding.code.as_str());
            let level = worst.entry(of).or_insert(finding.level);
            *level = finding.level.max(*level);
        }
        for ((datastore, code), at) in worst {
            for level in LEVELS {
                let of = OfFinding {
                    datastore: datastore.clone(),
                    code: code.to_owned(),
                    level: level.to_string(),
                };
                self.readiness.get_or_create(&of).set(i64::from(level == at));
            }
        }
    }

    fn take_in_detection(&self, detection: &DetectionStatus) {
        self.window.set(detection.window_ms / 1000.0);
        for (region, quantiles) in &detection.round_trips {
            for (quantile, milliseconds) in by_quantile(quantiles) {
                let of = OfPolls { region: region.clone(), quantile };
                self.round_trips.get_or_create(&of).set(milliseconds / 1000.0);
            }
        }
        for (node, quantiles) in &detection.write_probes {
            let Some((datastore, region)) = node.split_once('.') else { continue };
            for (quantile, milliseconds) in by_quantile(quantiles) {
                let (datastore, region) = (datastore.to_owned(), region.to_owned());
                let of = OfProbes { datastore, region, quantile };
                self.write_probes.get_or_create(&of).set(milliseconds / 1000.0);
            }
        }
    }

    fn take_in(&self, status: &StatusBody) {
        self.epoch.set(status.epoch as i64);
        self.revision.set(status.revision as i64);
        self.frozen.set(i64::from(status.frozen.is_some()));
        self.exposed_seconds.set(status.exposed_seconds.unwrap_or(0.0));
        for mode in AutomaticMode::ALL {
            let of = OfMode { mode: mode.to_string() };
            let holds = status.automatic.mode == mode.word();
            self.automatic.get_or_create(&of).set(i64::from(holds));
        }
        for region in &status.regions {
            let writes = i64::from(*region == status.current_region);
            self.writer.get_or_create(&OfRegion { region: region.clone() }).set(writes);
        }
        for (region, silent) in &status.agents {
            let up = i64::from(silent.is_none());
            self.agent_up.get_or_create(&OfRegion { region: region.clone() }).set(up);
        }
        self.take_in_detection(&status.detection);
        self.behind.clear();
        self.behind_seconds.clear();
        for datastore in &status.datastores {
            for state in ["protected", "at-risk", "exposed", "best-effort"] {
                let of = OfDatastore { datastore: datastore.name.clone(), state: state.to_owned() };
                self.protection.get_or_create(&of).set(i64::from(datastore.protection == state));
            }
            if let Some(mode) = &datastore.protection_mode {
                let of = OfProtectionMode { datastore: datastore.name.clone(), mode: mode.clone() };
                self.protection_mode.get_or_create(&of).set(1);
            }
            let of = OfMembers { datastore: datastore.name.clone() };
            self.members.get_or_create(&of).set(datastore.takeover.len() as i64);
            for node in &datastore.nodes {
                let region = node.node.split('.').next_back().unwrap_or_default().to_owned();
                let of = OfNode { datastore: datastore.name.clone(), region };
                if let Some(behind) = node.behind_bytes {
                    self.behind.get_or_create(&of).set(behind as i64);
                }
                if let Some(behind) = node.behind_seconds {
                    self.behind_seconds.get_or_create(&of).set(behind);
                }
            }
        }
    }
}

fn by_quantile(body: &QuantilesBody) -> [(&'static str, f64); 3] {
    [("0.5", body.p50_ms), ("0.99", body.p99_ms), ("0.999", body.p999_ms)]
}
