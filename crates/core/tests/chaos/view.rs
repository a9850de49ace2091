//! What an agent would report of a model server.

use std::collections::BTreeMap;

use tier0_core::observe::*;
use tier0_core::record::DatastoreKind;
use tier0_core::words::*;

use super::{Base, Chaos, Server};

/// Where WAL begins.
const BEGIN: u64 = 1_000;

/// Whether a report says that the server runs.
pub fn is_running(view: &NodeView) -> bool {
    match view {
        NodeView::Postgres(view) => view.process == ProcessState::Running,
        NodeView::Redis(view) => view.process == ProcessState::Running,
        NodeView::Route(view) => view.process == ProcessState::Running,
    }
}

pub fn address(id: &NodeId) -> String {
    let site = if id.region().as_str() == "region1" { 1 } else { 2 };
    format!("127.0.{site}.1:1")
}

impl Chaos {
    pub fn lsn(&self, length: usize) -> Lsn {
        Lsn::from_bytes(BEGIN + self.parameters.write_bytes * length as u64)
    }

    pub fn length(&self, lsn: Lsn) -> usize {
        (lsn.bytes().saturating_sub(BEGIN) / self.parameters.write_bytes) as usize
    }

    pub fn view(&self, id: &NodeId) -> NodeView {
        let server = &self.servers[id];
        match server.kind {
            DatastoreKind::Postgres => NodeView::Postgres(self.postgres(id, server)),
            DatastoreKind::Redis => NodeView::Redis(redis(server)),
        }
    }

    fn postgres(&self, id: &NodeId, server: &Server) -> PostgresView {
        let running = server.runs();
        let streams = |other: &&Server| {
            // A sender does not notice at once that its standby stands still.
            let there = other.runs() || other.shown() == ProcessState::Silent;
            running && there && other.streaming && other.follows.as_ref() == Some(id)
        };
        PostgresView {
            process: server.shown(),
            role: running.then_some(match server.base {
                Base::Primary => PostgresRole::Primary,
                Base::Standby | Base::Empty => PostgresRole::Standby,
            }),
            system: Some(SystemId("7".to_owned())),
            timeline: Some(Timeline(server.timeline)),
            flushed: Some(self.lsn(server.log.len())),
            replayed: Some(self.lsn(server.log.len())),
            sync_names: running.then(|| match server.names.as_str() {
                "" => String::new(),
                name => format!("FIRST 1 (\"{name}\")"),
            }),
            followers: self
                .servers
                .values()
                .filter(streams)
                .map(|other| PostgresFollower {
                    name: other.name.clone(),
                    state: "streaming".to_owned(),
                    sync_state: "sync".to_owned(),
                    flushed: Some(self.lsn(other.log.len())),
                    replayed: Some(self.lsn(other.log.len())),
                })
                .collect(),
            streaming_as: (running && server.streaming).then(|| server.name.clone()),
            clients_admitted: running && server.admitted,
            shut_down_cleanly: None,
            sessions: 0,
            open_transactions: 0,
            longest_transaction_ms: None,
            longest_application: None,
            retained_wal: 0,
            slots: BTreeMap::new(),
            logical_slots: Vec::new(),
            expiring: None,
            disk_free: Some(10_000_000_000),
            settings: self.waits(server),
            version: Some(150_018),
            archive: None,
            commits: None,
            error: None,
        }
    }
    /// How long the oldest commit has waited, as the adapter tells it.
    fn waits(&self, server: &Server) -> BTreeMap<String, String> {
        let Some(since) = server.waiting_since.filter(|_| server.is_primary()) else {
            return BTreeMap::new();
        };
        let waited = (self.now - since) / super::MS;
        [("tier0.commit_wait_ms".to_owned(), waited.to_string())].into()
    }
}

fn redis(server: &Server) -> RedisView {
    let running = server.runs();
    RedisView {
        process: server.shown(),
        role: running.then_some(match server.base {
            Base::Primary => RedisRole::Master,
            Base::Standby | Base::Empty => RedisRole::Replica,
        }),
        replication: Some(ReplicationId(format!("r{}", server.timeline))),
        offset: Some(server.log.len() as u64),
        second: None,
        master: server.follows.as_ref().map(address),
        link_up: server.streaming,
        loading: false,
        keys: 1,
        min_replicas_to_write: running.then_some(server.min_replicas),
        evicted_keys: 0,
        replicas: 1,
        used_memory: 0,
        maxmemory: 0,
        sentinels: BTreeMap::new(),
        disk_free: Some(10_000_000_000),
        version: None,
        persistence: None,
        error: None,
    }
}
