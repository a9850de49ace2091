//! What the agents report of each node, as numbers: positions, archive, slots, disk, memory,
//! Sentinels. A node whose agent is silent has none of them; what it said last is not what is so.
//!
//! Left out: how far a node is behind, which `/status` shows too and `metrics/mod.rs` takes from it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tier0_core::observe::{NodeView, PostgresView, ProcessState, RedisView};
use tier0_core::orchestrator::{Now, Orchestrator};
use tier0_core::words::NodeId;

use super::{OfNode, Seconds};

/// Under this name an agent reports how long the longest waiting commit has waited.
const COMMIT_WAIT: &str = "tier0.commit_wait_ms";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSlot {
    datastore: String,
    region: String,
    slot: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSentinels {
    datastore: String,
    region: String,
    says: &'static str,
}

/// A node whose agent answers.
pub struct SeenNode {
    id: NodeId,
    view: NodeView,
    /// `host:port` of the writer's node, which Sentinels should name.
    writer: Option<String>,
}

/// Every node whose agent answers.
pub fn seen(core: &Orchestrator, now: &Now) -> Vec<SeenNode> {
    let settings = core.settings();
    let writer = core.record().map(|record| &record.writer);
    let mut found = Vec::new();
    for (name, datastore) in &settings.shape.datastores {
        for region in &settings.shape.regions {
            if core.seen().agent_silent(region, now.moment, settings.limits.silence).is_some() {
                continue;
            }
            let id = NodeId::new(name.clone(), region.clone());
            let Some(view) = core.seen().view(&id).cloned() else { continue };
            let writer = writer.and_then(|writer| datastore.addresses.get(writer).cloned());
            found.push(SeenNode { id, view, writer });
        }
    }
    found
}

/// Where a node was in which history, when it was last looked at.
struct Place {
    history: String,
    bytes: u64,
}

/// The metrics of nodes.
#[derive(Default)]
pub struct NodeMetrics {
    places: Mutex<BTreeMap<NodeId, Place>>,
    up: Family<OfNode, Gauge>,
    replicated: Family<OfNode, Counter>,
    archived_files: Family<OfNode, Counter>,
    archived_bytes: Family<OfNode, Counter>,
    archive_failures: Family<OfNode, Counter>,
    archive_age: Family<OfNode, Seconds>,
    slots: Family<OfSlot, Gauge>,
    retained: Family<OfNode, Gauge>,
    sessions: Family<OfNode, Gauge>,
    longest_transaction: Family<OfNode, Seconds>,
    commit_wait: Family<OfNode, Seconds>,
    disk_free: Family<OfNode, Gauge>,
    memory: Family<OfNode, Gauge>,
    memory_most: Family<OfNode, Gauge>,
    sentinels: Family<OfSentinels, Gauge>,
}

impl NodeMetrics {
    /// Into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tier0_node_up",
            "1 while the server answers its agent; absent while the agent is silent",
            self.up.clone(),
        );
        registry.register(
            "tier0_replication_bytes",
            "Bytes of WAL, or of Redis' replication stream, that the node wrote or received",
            self.replicated.clone(),
        );
        registry.register(
            "tier0_archived_files",
            "Files that the node archived",
            self.archived_files.clone(),
        );
        registry.register(
            "tier0_archived_bytes",
            "The same in bytes, each file counted as a whole segment",
            self.archived_bytes.clone(),
        );
        registry.register(
            "tier0_archive_failures",
            "How often archiving a file failed",
            self.archive_failures.clone(),
        );
        registry.register(
            "tier0_archive_age_seconds",
            "How long ago a file was archived; absent where none was",
            self.archive_age.clone(),
        );
        registry.register(
            "tier0_slot",
            "1 for each replication slot, with its wal_status",
            self.slots.clone(),
        );
        registry.register(
            "tier0_retained_wal_bytes",
            "WAL that is kept for slots which nobody reads",
            self.retained.clone(),
        );
        registry.register(
            "tier0_sessions",
            "Sessions of PostgreSQL clients",
            self.sessions.clone(),
        );
        registry.register(
            "tier0_longest_transaction_seconds",
            "Age of the oldest open transaction of a client; 0 while there is none",
            self.longest_transaction.clone(),
        );
        registry.register(
            "tier0_commit_wait_seconds",
            "How long the longest waiting commit has waited for a standby; 0 while none waits",
            self.commit_wait.clone(),
        );
        registry.register(
            "tier0_disk_free_bytes",
            "Free on the file system of the data directory",
            self.disk_free.clone(),
        );
        registry.register(
            "tier0_redis_used_memory_bytes",
            "Redis' used_memory",
            self.memory.clone(),
        );
        registry.register(
            "tier0_redis_maxmemory_bytes",
            "Redis' maxmemory; 0 is unlimited",
            self.memory_most.clone(),
        );
        registry.register(
            "tier0_sentinels",
            "Sentinels by what they say to the agent of a region: agree, disagree, silent",
            self.sentinels.clone(),
        );
    }

    /// Show these nodes and no others.
    pub fn take_in(&self, nodes: &[SeenNode]) {
        self.up.clear();
        self.archived_files.clear();
        self.archived_bytes.clear();
        self.archive_failures.clear();
        self.archive_age.clear();
        self.slots.clear();
        self.retained.clear();
        self.sessions.clear();
        self.longest_transaction.clear();
        self.commit_wait.clear();
        self.disk_free.clear();
        self.memory.clear();
        self.memory_most.clear();
        self.sentinels.clear();
        for node in nodes {
            let of = OfNode {
                datastore: node.id.datastore().to_string(),
                region: node.id.region().to_string(),
            };
            let (process, disk_free) = match &node.view {
                NodeView::Postgres(view) => {
                    self.postgres(node, &of, view);
                    (view.process, view.disk_free)
                }
                NodeView::Redis(view) => {
                    self.redis(node, &of, view);
                    (view.process, view.disk_free)
                }
                NodeView::Route(_) => continue,
            };
            let up = i64::from(process == ProcessState::Running);
            self.up.get_or_create(&of).set(up);
            if let Some(free) = disk_free {
                self.disk_free.get_or_create(&of).set(whole(free));
            }
        }
    }

    fn postgres(&self, node: &SeenNode, of: &OfNode, view: &PostgresView) {
        // What a server that does not answer would say is not zero, it is not known.
        if view.process != ProcessState::Running {
            return;
        }
        if let (Some(timeline), Some(flushed)) = (view.timeline, view.flushed) {
            self.moved_on(&node.id, of, timeline.to_string(), flushed.bytes());
        }
        if let Some(archive) = &view.archive {
            set(&self.archived_files, of, archive.archived);
            set(&self.archived_bytes, of, archive.archived_bytes);
            set(&self.archive_failures, of, archive.failed);
            if let Some(seconds) = archive.last_archived_seconds {
                self.archive_age.get_or_create(of).set(seconds as f64);
            }
        }
        for (slot, status) in &view.slots {
            let of = OfSlot {
                datastore: of.datastore.clone(),
                region: of.region.clone(),
                slot: slot.clone(),
                status: status.clone(),
            };
            self.slots.get_or_create(&of).set(1);
        }
        self.retained.get_or_create(of).set(whole(view.retained_wal));
        self.sessions.get_or_create(of).set(i64::from(view.sessions));
        let seconds = |milliseconds: Option<u64>| milliseconds.unwrap_or(0) as f64 / 1000.0;
        self.longest_transaction.get_or_create(of).set(seconds(view.longest_transaction_ms));
        let waited = view.settings.get(COMMIT_WAIT).and_then(|text| text.parse().ok());
        self.commit_wait.get_or_create(of).set(seconds(waited));
    }

    fn redis(&self, node: &SeenNode, of: &OfNode, view: &RedisView) {
        if let Some(position) = view.position().filter(|_| !view.loading) {
            self.moved_on(&node.id, of, position.replication.0, position.offset);
        }
        let mut says = BTreeMap::from([("agree", 0), ("disagree", 0), ("silent", 0)]);
        for sentinel in view.sentinels.values() {
            let what = match sentinel.error {
                Some(_) => "silent",
                None if sentinel.master == node.writer => "agree",
                None => "disagree",
            };
            *says.entry(what).or_default() += 1;
        }
        for (says, count) in says {
            let of =
                OfSentinels { datastore: of.datastore.clone(), region: of.region.clone(), says };
            self.sentinels.get_or_create(&of).set(count);
        }
        if view.process == ProcessState::Running {
            self.memory.get_or_create(of).set(whole(view.used_memory));
            self.memory_most.get_or_create(of).set(whole(view.maxmemory));
        }
    }

    /// Count what a node got since the last look, where both are of one history: positions of
    /// different ones cannot be compared, and a rewind goes back without anything being lost here.
    fn moved_on(&self, id: &NodeId, of: &OfNode, history: String, bytes: u64) {
        let counter = self.replicated.get_or_create(of);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = places.get(id).filter(|before| before.history == history) {
            counter.inc_by(bytes.saturating_sub(before.bytes));
        }
        places.insert(id.clone(), Place { history, bytes });
    }
}

/// A counter that somebody else counts.
fn set(family: &Family<OfNode, Counter>, of: &OfNode, value: u64) {
    family.get_or_create(of).inner().store(value, Ordering::Relaxed);
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_within_one_history() {
        let metrics = NodeMetrics::default();
        let id: NodeId = "main.region1".parse().unwrap();
        let of = OfNode { datastore: "main".to_owned(), region: "region1".to_owned() };
        for (history, bytes, counted) in [
            // What was there before the first look is not counted.
            ("1", 1_000, 0),
            ("1", 1_500, 500),
            ("1", 1_500, 500),
            // A promotion begins another history.
            ("2", 9_000, 500),
            ("2", 9_010, 510),
            // A rewind goes back.
            ("2", 8_000, 510),
            ("2", 8_001, 511),
        ] {
            metrics.moved_on(&id, &of, history.to_owned(), bytes);
            assert_eq!(metrics.replicated.get_or_create(&of).get(), counted, "{history} {bytes}");
        }
    }
}
