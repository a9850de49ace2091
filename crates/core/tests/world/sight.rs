//! What is seen of the small world: views, knocks, and who may act on them.

use std::collections::BTreeMap;
use std::time::Duration;

use tier0_core::agent::hear;
use tier0_core::observe::*;
use tier0_core::orchestrator::{Asked, Input, Request};
use tier0_core::record::{AutomaticMode, DatastoreKind, Record};
use tier0_core::words::*;

use super::{World, region};

impl World {
    /// What the agent of a region answers to a poll.
    pub(super) fn report(&mut self, place: &Region) -> Input {
        let record = self.core.record().map(Record::heard);
        let agent = self.agents.get_mut(place).unwrap();
        if agent.down {
            return Input::Missed { region: place.clone(), why: "no connection".to_owned() };
        }
        let hears = self.deaf.as_ref() != Some(place);
        if let Some(record) = record.as_ref().filter(|_| hears)
            && let Some(heard) = hear(agent.heard.as_ref(), record)
        {
            agent.heard = Some(heard);
        }
        agent.sequence += 1;
        let (heard, sequence) = (agent.heard.clone(), agent.sequence);
        let nodes = self
            .servers
            .keys()
            .filter(|id| id.region() == place)
            .map(|id| (id.clone(), NodeReport { age_ms: 0, view: self.view(id), last: None }))
            .collect();
        Input::Report(AgentReport {
            region: place.clone(),
            run: "agent".to_owned(),
            sequence,
            heard,
            nodes,
            stamp_us: self.now,
            peers: self.peers_of(place),
            refusing: None,
            host: Default::default(),
        })
    }

    /// The store is read, and the other orchestrators are asked.
    pub(super) fn look_around(&mut self) {
        if self.loading && !self.storeless {
            self.loading = false;
            self.queue.push_back(Input::Loaded(self.stored.clone()));
        }
        if self.core.settings().seats.is_shared() && !self.storeless {
            let begun = Moment::from_micros(self.now);
            self.queue.push_back(Input::Read { record: self.stored.clone(), begun });
        }
        let reports: Vec<Input> = self.others.iter().cloned().map(Input::Peer).collect();
        self.queue.extend(reports);
    }

    /// Say whether the writer may be moved without being asked.
    pub fn arm(&mut self, mode: AutomaticMode) {
        self.arm_as(mode, None);
    }

    /// The same for a while.
    pub fn arm_for(&mut self, mode: AutomaticMode, lasting: Duration) {
        self.arm_as(mode, Some(lasting));
    }

    fn arm_as(&mut self, mode: AutomaticMode, lasting: Option<Duration>) {
        let id: OperationId = format!("aaaaaaaa-{:04}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let what = Asked::Arm { mode, lasting };
        let request = Request { id, what, by: "test".to_owned(), reason: "test".to_owned() };
        self.queue.push_back(Input::Asked(request));
        self.run(Duration::from_millis(100));
        assert_eq!(self.stored.automatic.mode, mode);
    }

    /// Nothing comes out of a region any more, and everything in it goes on.
    pub fn silence_region(&mut self, name: &str) {
        self.agent(name).down = true;
        self.dark = Some(region(name));
    }

    /// What a knock at a server comes to, from anywhere outside its region.
    pub fn knock(&self, id: &NodeId) -> Knock {
        let server = &self.servers[id];
        match server.process {
            _ if self.dark.as_ref() == Some(id.region()) => Knock::Silent,
            ProcessState::Silent => Knock::Silent,
            ProcessState::Running => Knock::Answered,
            ProcessState::Stopped
            | ProcessState::Starting
            | ProcessState::NoData
            | ProcessState::Unusable => Knock::Refused,
        }
    }

    /// Every server is knocked at, by the orchestrator and by the other region's agent.
    pub fn knock_at_all(&mut self) {
        for id in self.servers.keys().cloned().collect::<Vec<_>>() {
            let knock = self.knock(&id);
            if knock == Knock::Answered {
                self.servers.get_mut(&id).unwrap().answered_at = self.now;
            }
            let knock = if self.blind { Knock::Silent } else { knock };
            self.queue.push_back(Input::Knocked { node: id, knock });
        }
    }

    pub fn peers_of(&self, place: &Region) -> BTreeMap<NodeId, Reach> {
        let other = self.servers.iter().filter(|(id, _)| id.region() != place);
        other
            .map(|(id, server)| {
                let newest = if self.pair_cut { Knock::Silent } else { self.knock(id) };
                let unanswered_ms = match newest {
                    Knock::Answered => 0,
                    Knock::Refused | Knock::Silent => (self.now - server.answered_at) / 1_000,
                };
                (id.clone(), Reach { newest, unanswered_ms })
            })
            .collect()
    }

    pub fn view(&self, id: &NodeId) -> NodeView {
        let server = &self.servers[id];
        let running = server.process == ProcessState::Running;
        match server.kind {
            DatastoreKind::Postgres => NodeView::Postgres(PostgresView {
                process: server.process,
                role: running.then_some(if server.primary {
                    PostgresRole::Primary
                } else {
                    PostgresRole::Standby
                }),
                system: Some(SystemId("7".to_owned())),
                timeline: Some(Timeline(server.timeline)),
                flushed: Some(Lsn::from_bytes(server.written)),
                replayed: Some(Lsn::from_bytes(server.written)),
                sync_names: running.then(|| match server.names.as_str() {
                    "" => String::new(),
                    name => format!("FIRST 1 (\"{name}\")"),
                }),
                followers: self
                    .servers
                    .values()
                    .filter(|other| {
                        other.follows.as_ref() == Some(id)
                            && other.process == ProcessState::Running
                            && running
                    })
                    .filter_map(|other| {
                        Some(PostgresFollower {
                            name: other.streaming_as.clone()?,
                            state: "streaming".to_owned(),
                            sync_state: "sync".to_owned(),
                            flushed: Some(Lsn::from_bytes(other.written)),
                            replayed: Some(Lsn::from_bytes(other.written)),
                        })
                    })
                    .collect(),
                streaming_as: server.streaming_as.clone(),
                clients_admitted: server.admitted,
                shut_down_cleanly: None,
                sessions: 0,
                open_transactions: 0,
                longest_transaction_ms: None,
                longest_application: None,
                retained_wal: 0,
                archive: None,
                slots: BTreeMap::new(),
                logical_slots: Vec::new(),
                expiring: None,
                disk_free: Some(10_000_000_000),
                settings: match server.commit_wait_ms {
                    0 => BTreeMap::new(),
                    waits => [("tier0.commit_wait_ms".to_owned(), waits.to_string())].into(),
                },
                version: Some(150_018),
                commits: (running && server.primary && server.admitted).then_some(CommitProbe {
                    kept_failing_ms: server.stuck_for_ms,
                    fresh_failing_ms: server.stuck_for_ms,
                    kept_took_ms: None,
                    fresh_took_ms: None,
                    why: None,
                }),
                error: None,
            }),
            DatastoreKind::Redis => NodeView::Redis(RedisView {
                process: server.process,
                role: running.then_some(if server.primary {
                    RedisRole::Master
                } else {
                    RedisRole::Replica
                }),
                replication: Some(ReplicationId(format!("r{}", server.timeline))),
                offset: Some(server.written),
                second: None,
                master: server.follows.as_ref().map(|follows| {
                    let shape = &self.core.settings().shape.datastores[follows.datastore()];
                    shape.addresses[follows.region()].clone()
                }),
                link_up: server
                    .follows
                    .as_ref()
                    .is_some_and(|follows| self.servers[follows].process == ProcessState::Running),
                loading: false,
                keys: 1,
                min_replicas_to_write: Some(server.min_replicas),
                evicted_keys: 0,
                replicas: 1,
                used_memory: 0,
                maxmemory: 0,
                sentinels: BTreeMap::new(),
                disk_free: Some(10_000_000_000),
                version: None,
                persistence: None,
                error: None,
            }),
        }
    }
}
