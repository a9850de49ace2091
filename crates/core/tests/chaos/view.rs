//! What an agent would report of a model server.

use std::collections::BTreeMap;

use tier0_core::observe::*;
use tier0_core::record::DatastoreKind;
use tier0_core::words::*;

use super::{Base, Chaos, Server};

pub fn lsn(length: usize) -> Lsn {
    Lsn::from_bytes(1_000 + 8 * length as u64)
}

pub fn length(lsn: Lsn) -> usize {
    (lsn.bytes().saturating_sub(1_000) / 8) as usize
}

pub fn address(id: &NodeId) -> String {
    let site = if id.region().as_str() == "region1" { 1 } else { 2 };
    format!("127.0.{site}.1:1")
}

impl Chaos {
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
            running && other.runs() && other.streaming && other.follows.as_ref() == Some(id)
        };
        PostgresView {
            process: server.process,
            role: running.then_some(match server.base {
                Base::Primary => PostgresRole::Primary,
                Base::Standby | Base::Empty => PostgresRole::Standby,
            }),
            system: Some(SystemId("7".to_owned())),
            timeline: Some(Timeline(server.timeline)),
            flushed: Some(lsn(server.log.len())),
            replayed: Some(lsn(server.log.len())),
            sync_names: running.then(|| server.names.clone()),
            followers: self
                .servers
                .values()
                .filter(streams)
                .map(|other| PostgresFollower {
                    name: other.name.clone(),
                    state: "streaming".to_owned(),
                    sync_state: "sync".to_owned(),
                    flushed: Some(lsn(other.log.len())),
                    replayed: Some(lsn(other.log.len())),
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
            settings: BTreeMap::new(),
            version: Some(150_018),
            archive: None,
            commits: None,
            error: None,
        }
    }
}

fn redis(server: &Server) -> RedisView {
    let running = server.runs();
    RedisView {
        process: server.process,
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
