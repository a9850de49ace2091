//! A small world for the orchestrator's core: model servers that obey orders, a store that
//! compares and swaps, and hands to make any of it fail. Time moves only when a test says so.
//!
//! The model knows just enough of PostgreSQL and Redis to make the steps' outcomes depend on each
//! other. The simulator proper, with networks and crashes at every point, is another crate.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod kinds;
mod sight;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tier0_core::agent::{Judgement, Obeyed, hear, heard_in, judge};
use tier0_core::observe::*;
use tier0_core::orchestrator::*;
use tier0_core::order::{Command, EndedSessions, Fact, Order, Outcome, Refusal};
use tier0_core::record::{Automatic, AutomaticMode, DatastoreKind, Record};
use tier0_core::steps::{Step, StepKey};
use tier0_core::words::*;

pub fn region(name: &str) -> Region {
    name.parse().unwrap()
}

pub fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub fn settings(postgres: usize, redis: usize) -> Settings {
    let mut datastores = BTreeMap::new();
    let mut add = |name: String, kind, policy| {
        let addresses = [("region1", 1), ("region2", 2)]
            .map(|(region_name, site)| (region(region_name), format!("127.0.{site}.1:1")))
            .into();
        let shape = DatastoreShape {
            kind,
            policy,
            addresses,
            announce: Announce::Vote,
            on_process_death: match kind {
                DatastoreKind::Postgres => OnProcessDeath::Failover,
                DatastoreKind::Redis => OnProcessDeath::Restart,
            },
            protection: ProtectionMode::MaxAvailability,
        };
        datastores.insert(name.parse().unwrap(), shape);
    };
    for number in 1..=postgres {
        add(format!("pg{number}"), DatastoreKind::Postgres, MovePolicy::Required);
    }
    for number in 1..=redis {
        add(format!("redis{number}"), DatastoreKind::Redis, MovePolicy::Follow);
    }
    let ms = Duration::from_millis;
    Settings {
        stack: "test".parse().unwrap(),
        shape: Shape {
            regions: vec![region("region1"), region("region2")],
            datastores,
            routes: BTreeMap::new(),
        },
        seats: Seats::only("witness".parse().unwrap()),
        limits: Limits {
            cooperation: ms(300),
            stop: ms(2000),
            stop_silent: ms(100),
            join: ms(300),
            hold: ms(10_000),
            drain: ms(200),
            pause: ms(1000),
            receive: ms(1000),
            promote: ms(5000),
            checkpoint: ms(30_000),
            follow: ms(60_000),
            command: ms(2000),
            silence: ms(1000),
            lease: ms(1000),
            cool_down: ms(60_000),
            stall: ms(1000),
            floors: ms(1000),
            disk_free_least: 64_000_000,
            replay_backlog_most: 64_000_000,
            backup_age_most: Duration::from_secs(26 * 3600),
        },
    }
}

#[derive(Debug, Clone)]
pub struct Server {
    pub kind: DatastoreKind,
    pub process: ProcessState,
    pub primary: bool,
    pub admitted: bool,
    pub names: String,
    pub streaming_as: Option<String>,
    pub timeline: u32,
    pub written: u64,
    pub follows: Option<NodeId>,
    pub min_replicas: u64,
    pub promotions: u32,
    pub canary: bool,
    pub stuck_for_ms: u64,
    pub commit_wait_ms: u64,
    pub answered_at: u64,
}

/// What a test makes of a command instead of obeying it.
pub type Hand = Box<dyn FnMut(&Command) -> Option<Outcome>>;

pub struct World {
    pub core: Orchestrator,
    pub stored: Record,
    pub servers: BTreeMap<NodeId, Server>,
    pub agents: BTreeMap<Region, AgentModel>,
    pub now: u64,
    pub fresh: u64,
    pub queue: VecDeque<Input>,
    pub ended: Vec<(Activity, Ended)>,
    pub refused: Vec<(OperationId, tier0_core::order::Refusal)>,
    pub log: Vec<String>,
    pub hand: Option<Hand>,
    pub lose_swaps: bool,
    pub stop_at: Option<Step>,
    /// The agent of this region is told no news by those who ask it.
    pub deaf: Option<Region>,
    /// Commands of this step come to no end.
    pub endless: Option<Step>,
    pub stopped_core: bool,
    pub dark: Option<Region>,
    pub blind: bool,
    pub pair_cut: bool,
    pub near_misses: Vec<NearMiss>,
    /// What the other orchestrators say, again and again.
    pub others: Vec<PeerReport>,
    /// The store neither stores nor can be read.
    pub storeless: bool,
    /// A read of it waits until it is back.
    pub loading: bool,
}

#[derive(Debug, Clone, Default)]
pub struct AgentModel {
    pub down: bool,
    pub heard: Option<Heard>,
    pub obeyed: BTreeMap<NodeId, Obeyed>,
    pub sequence: u64,
}

impl World {
    pub fn new(postgres: usize, redis: usize) -> World {
        World::new_with(postgres, redis, |_| {})
    }

    pub fn new_with(postgres: usize, redis: usize, change: impl FnOnce(&mut Settings)) -> World {
        let mut settings = settings(postgres, redis);
        change(&mut settings);
        let lineage: Lineage = "11111111-0000".parse().unwrap();
        let stored = first_record(
            settings.stack.clone(),
            &settings.shape,
            lineage,
            "nobody".to_owned(),
            Automatic { mode: AutomaticMode::Off, ..Automatic::default() },
            WallMillis(0),
        );
        let mut servers = BTreeMap::new();
        for (name, datastore) in &settings.shape.datastores {
            for place in &settings.shape.regions {
                let first = place.as_str() == "region1";
                let server = Server {
                    kind: datastore.kind,
                    process: if first || datastore.kind == DatastoreKind::Redis {
                        ProcessState::Stopped
                    } else {
                        ProcessState::NoData
                    },
                    primary: first,
                    admitted: false,
                    names: String::new(),
                    streaming_as: None,
                    timeline: 1,
                    written: 100,
                    follows: None,
                    min_replicas: 99,
                    promotions: 0,
                    canary: false,
                    stuck_for_ms: 0,
                    commit_wait_ms: 0,
                    answered_at: 0,
                };
                servers.insert(NodeId::new(name.clone(), place.clone()), server);
            }
        }
        let agents = settings
            .shape
            .regions
            .iter()
            .map(|region| (region.clone(), AgentModel::default()))
            .collect();
        let core = Orchestrator::new(settings, "first-run".to_owned());
        let mut world = World {
            core,
            stored: stored.clone(),
            servers,
            agents,
            now: 1_000_000,
            fresh: 1,
            queue: VecDeque::new(),
            ended: Vec::new(),
            refused: Vec::new(),
            log: Vec::new(),
            hand: None,
            lose_swaps: false,
            stop_at: None,
            deaf: None,
            endless: None,
            stopped_core: false,
            dark: None,
            blind: false,
            pair_cut: false,
            near_misses: Vec::new(),
            others: Vec::new(),
            storeless: false,
            loading: false,
        };
        world.queue.push_back(Input::Loaded(stored));
        world
    }

    /// A stack that has come up by itself.
    pub fn protected(postgres: usize, redis: usize) -> World {
        let mut world = World::new(postgres, redis);
        world.run(Duration::from_secs(5));
        for (name, datastore) in &world.stored.datastores {
            if datastore.kind == DatastoreKind::Postgres {
                assert_eq!(datastore.protection.word(), "protected", "{name}: {:#?}", world.log);
            }
        }
        world.log.clear();
        world.ended.clear();
        world
    }

    pub fn server(&mut self, name: &str) -> &mut Server {
        self.servers.get_mut(&node(name)).unwrap()
    }

    pub fn agent(&mut self, name: &str) -> &mut AgentModel {
        self.agents.get_mut(&region(name)).unwrap()
    }

    /// Every process of a region ends.
    pub fn kill_region(&mut self, name: &str) {
        self.agent(name).down = true;
        let killed = region(name);
        for (id, server) in &mut self.servers {
            if *id.region() == killed {
                server.process = ProcessState::Stopped;
                server.streaming_as = None;
                server.admitted = false;
            }
        }
    }

    pub fn ask(&mut self, target: &str, consent: Consent) -> OperationId {
        let id: OperationId = format!("aaaaaaaa-{:04}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let request = Request {
            id: id.clone(),
            what: Asked::Move { target: region(target), consent },
            by: "test".to_owned(),
            reason: "test".to_owned(),
        };
        self.queue.push_back(Input::Asked(request));
        id
    }

    pub fn rebuild(&mut self, name: &str) {
        let id: OperationId = format!("aaaaaaaa-{:04}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let what = Asked::Rebuild { node: node(name) };
        let request = Request { id, what, by: "test".to_owned(), reason: "test".to_owned() };
        self.queue.push_back(Input::Asked(request));
    }

    /// Let time pass in steps of ten milliseconds.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time.as_micros() as u64;
        while self.now < end {
            self.drain();
            self.now += 10_000;
            if (self.now / 10_000).is_multiple_of(10) {
                self.knock_at_all();
                self.poll();
                self.look_around();
            }
            self.queue.push_back(Input::Tick);
        }
        self.drain();
    }

    /// A new run of the orchestrator that knows nothing but the store.
    pub fn restart_core(&mut self, name: &str) {
        self.core = Orchestrator::new(self.core.settings().clone(), name.to_owned());
        self.queue.clear();
        self.queue.push_back(Input::Loaded(self.stored.clone()));
        self.stop_at = None;
        self.stopped_core = false;
        self.poll();
    }

    /// One agent reports before the others are asked again.
    pub fn hear_from(&mut self, name: &str) {
        let input = self.report(&region(name));
        self.queue.push_back(input);
    }

    fn poll(&mut self) {
        for place in self.agents.keys().cloned().collect::<Vec<_>>() {
            let input = self.report(&place);
            self.queue.push_back(input);
        }
    }

    /// The time, for a look from outside.
    pub fn time(&self) -> Now {
        Now {
            moment: Moment::from_micros(self.now),
            wall: WallMillis(self.now as i64 / 1000),
            fresh: "cccccccc-000000".parse().unwrap(),
        }
    }

    pub fn drain(&mut self) {
        while let Some(input) = self.queue.pop_front() {
            if self.stopped_core {
                continue;
            }
            let fresh = format!("bbbbbbbb-{:06}", self.fresh).parse().unwrap();
            self.fresh += 1;
            let now = Now {
                moment: Moment::from_micros(self.now),
                wall: WallMillis(self.now as i64 / 1000),
                fresh,
            };
            for effect in self.core.step(&now, input) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Store { .. } if self.storeless => self
                .queue
                .push_back(Input::Stored(StoreAnswer::Unknown { why: "no answer".to_owned() })),
            Effect::Store { expected, next } => {
                let answer = if self.stored.heard() == expected {
                    self.stored = *next;
                    StoreAnswer::Stored
                } else {
                    StoreAnswer::Lost { current: Box::new(self.stored.clone()) }
                };
                if self.lose_swaps {
                    self.queue.push_back(Input::Stored(StoreAnswer::Unknown {
                        why: "the answer was lost".to_owned(),
                    }));
                } else {
                    self.queue.push_back(Input::Stored(answer));
                }
                for place in self.agents.keys().cloned().collect::<Vec<_>>() {
                    let input = self.report(&place);
                    self.queue.push_back(input);
                }
            }
            Effect::Load if self.storeless => self.loading = true,
            Effect::Load => self.queue.push_back(Input::Loaded(self.stored.clone())),
            Effect::Send { operation, key, command } => {
                let command = *command;
                if self.stop_at == Some(key.step) {
                    self.stopped_core = true;
                    return;
                }
                self.log.push(format!("{key} {} {}", command.node, command.stamp));
                let stamp = command.stamp.clone();
                let ends = self.endless != Some(key.step);
                if let Some(outcome) = self.obey(&command).filter(|_| ends) {
                    self.queue.push_back(Input::Outcome { operation, key, stamp, outcome });
                }
                let place = command.node.region().clone();
                let input = self.report(&place);
                self.queue.push_back(input);
            }
            Effect::Ended { activity, ended } => self.ended.push((*activity, ended)),
            Effect::HeldBack(near_miss) => self.near_misses.push(near_miss),
            Effect::Refused { request, refusal } => self.refused.push((request.id, refusal)),
            Effect::Explain { row, subject, .. } => self.log.push(format!("row {row} {subject}")),
            Effect::Note(_) | Effect::Began(_) => {}
        }
    }

    fn obey(&mut self, command: &Command) -> Option<Outcome> {
        if let Some(hand) = &mut self.hand
            && let Some(outcome) = hand(command)
        {
            return Some(outcome);
        }
        let agent = self.agents.get_mut(command.node.region()).unwrap();
        if agent.down {
            return Some(Outcome::Unknown { why: "no connection".to_owned() });
        }
        match judge(agent.heard.as_ref(), agent.obeyed.get(&command.node), command) {
            Judgement::Answer(outcome) => return Some(outcome),
            Judgement::Refuse(refusal) => return Some(Outcome::Refused { refusal }),
            Judgement::Obey | Judgement::Again => {}
        }
        agent.heard = hear(agent.heard.as_ref(), &heard_in(&command.stamp));
        let outcome = self.serve(command);
        let obeyed = Obeyed { command: command.clone(), outcome: Some(outcome.clone()) };
        let agent = self.agents.get_mut(command.node.region()).unwrap();
        agent.obeyed.insert(command.node.clone(), obeyed);
        Some(outcome)
    }

    fn serve(&mut self, command: &Command) -> Outcome {
        let id = command.node.clone();
        assert!(kinds::has_row(self.servers[&id].kind, &command.order), "{id}: {command:?}");
        let failed = |why: &str| Outcome::Failed { why: why.to_owned() };
        let position = |server: &Server| WalPosition {
            system: SystemId("7".to_owned()),
            timeline: Timeline(server.timeline),
            lsn: Lsn::from_bytes(server.written),
        };
        let redis_position = |server: &Server| RedisPosition {
            replication: ReplicationId(format!("r{}", server.timeline)),
            offset: server.written,
        };
        let upstream_written = |world: &World, upstream: &NodeId| {
            let server = &world.servers[upstream];
            (server.written, server.timeline, server.process == ProcessState::Running)
        };
        let running = self.servers[&id].process == ProcessState::Running;
        match &command.order {
            Order::PostgresCheckpoint
            | Order::PostgresValidate { .. }
            | Order::RedisValidate { .. } => {
                if running {
                    Outcome::done()
                } else {
                    failed("down")
                }
            }
            Order::PostgresDrain => {
                let position = position(&self.servers[&id]);
                Outcome::Done { fact: Fact::Wal { position } }
            }
            Order::PostgresAwait { position } => {
                if self.servers[&id].written >= position.lsn.bytes() {
                    Outcome::done()
                } else {
                    failed("behind")
                }
            }
            Order::PostgresStop => {
                let server = self.servers.get_mut(&id).unwrap();
                server.process = ProcessState::Stopped;
                server.admitted = false;
                let clean_at = running.then(|| position(server));
                Outcome::Done { fact: Fact::Stopped { clean_at, ended: EndedSessions::default() } }
            }
            Order::PostgresStart { names } => {
                let server = self.servers.get_mut(&id).unwrap();
                server.process = ProcessState::Running;
                server.names = names.as_ref().map(ToString::to_string).unwrap_or_default();
                Outcome::done()
            }
            Order::PostgresAdmit { member } => {
                let streams = |name: &SyncName| {
                    self.servers.values().any(|server| {
                        server.process == ProcessState::Running
                            && server.streaming_as.as_deref() == Some(&name.to_string())
                    })
                };
                if !member.as_ref().is_none_or(streams) {
                    return Outcome::Unknown { why: "the member did not flush".to_owned() };
                }
                self.servers.get_mut(&id).unwrap().admitted = true;
                Outcome::done()
            }
            Order::PostgresPromote { names, .. } => {
                let server = self.servers.get_mut(&id).unwrap();
                if !running && !server.primary {
                    return failed("down");
                }
                if !running {
                    server.process = ProcessState::Running;
                    server.admitted = true;
                    server.names = names.as_ref().map(ToString::to_string).unwrap_or_default();
                }
                if !server.primary {
                    server.primary = true;
                    server.admitted = true;
                    server.timeline += 1;
                    server.promotions += 1;
                    server.follows = None;
                    server.streaming_as = None;
                    server.names = names.as_ref().map(ToString::to_string).unwrap_or_default();
                }
                Outcome::Done { fact: Fact::Promoted { position: position(server) } }
            }
            Order::PostgresFollow { upstream, .. } => {
                let (written, timeline, up) = upstream_written(self, upstream);
                if !up {
                    return failed("upstream down");
                }
                let name = id.join_name();
                let server = self.servers.get_mut(&id).unwrap();
                server.process = ProcessState::Running;
                server.primary = false;
                server.admitted = true;
                server.names = String::new();
                server.follows = Some(upstream.clone());
                server.streaming_as = Some(name);
                server.written = written;
                server.timeline = timeline;
                Outcome::Done {
                    fact: Fact::Followed {
                        method: "streaming".to_owned(),
                        diverged_bytes: 0,
                        kept_at: None,
                    },
                }
            }
            Order::PostgresJoinBegin { name, .. } => {
                let server = self.servers.get_mut(&id).unwrap();
                server.names = name.to_string();
                server.canary = true;
                Outcome::Done { fact: Fact::Waiting { lsn: Lsn::from_bytes(server.written) } }
            }
            Order::PostgresRename { name } => {
                self.servers.get_mut(&id).unwrap().streaming_as = Some(name.to_string());
                Outcome::done()
            }
            Order::PostgresJoinProve { name } => {
                let seen = self
                    .servers
                    .values()
                    .any(|server| server.streaming_as.as_deref() == Some(&name.to_string()));
                if !seen {
                    return failed("nobody streams under the name");
                }
                let position = position(&self.servers[&id]);
                Outcome::Done {
                    fact: Fact::Proven {
                        system: position.system,
                        timeline: position.timeline,
                        lsn: position.lsn,
                    },
                }
            }
            Order::PostgresLeave => {
                self.servers.get_mut(&id).unwrap().names = String::new();
                Outcome::done()
            }
            Order::RedisAskMaster { master } => {
                if self.knock(master) == Knock::Answered {
                    let refusal = Refusal::new("redis-master-lives", "it answers");
                    Outcome::Refused { refusal }
                } else {
                    Outcome::done()
                }
            }
            Order::RedisVote => Outcome::Done { fact: Fact::Voted { epoch: 5, votes: 3, of: 3 } },
            Order::RedisPause { .. } => {
                let position = redis_position(&self.servers[&id]);
                Outcome::Done { fact: Fact::Offset { position } }
            }
            Order::RedisAwait { position } => {
                if self.servers[&id].written >= position.offset {
                    Outcome::done()
                } else {
                    failed("behind")
                }
            }
            Order::RedisFence => {
                let server = self.servers.get_mut(&id).unwrap();
                server.min_replicas = 99;
                Outcome::Done { fact: Fact::Offset { position: redis_position(server) } }
            }
            Order::RedisUnfence { min_replicas_to_write } => {
                self.servers.get_mut(&id).unwrap().min_replicas = *min_replicas_to_write;
                Outcome::done()
            }
            Order::RedisPromote { .. } => {
                if !running {
                    return failed("down");
                }
                let server = self.servers.get_mut(&id).unwrap();
                if !server.primary {
                    server.primary = true;
                    server.timeline += 1;
                    server.promotions += 1;
                    server.follows = None;
                }
                server.min_replicas = 0;
                Outcome::Done { fact: Fact::RedisPromoted { position: redis_position(server) } }
            }
            Order::RedisFollow { upstream, min_replicas_to_write, .. } => {
                let (written, timeline, up) = upstream_written(self, upstream);
                if !up {
                    return failed("upstream down");
                }
                let server = self.servers.get_mut(&id).unwrap();
                server.process = ProcessState::Running;
                server.primary = false;
                server.follows = Some(upstream.clone());
                server.written = written;
                server.timeline = timeline;
                server.min_replicas = *min_replicas_to_write;
                Outcome::Done {
                    fact: Fact::Followed {
                        method: "partial".to_owned(),
                        diverged_bytes: 0,
                        kept_at: None,
                    },
                }
            }
            Order::RedisStart { .. } => {
                let server = self.servers.get_mut(&id).unwrap();
                server.process = ProcessState::Running;
                server.min_replicas = 0;
                Outcome::done()
            }
            Order::RedisAnnounce { .. } => {
                Outcome::Done { fact: Fact::Announced { agree: 3, of: 3, epoch: 5 } }
            }
            Order::RedisSentinelFailover => Outcome::done(),
            Order::Route { .. } => failed("no routes here"),
        }
    }

    /// Nothing may ever be so, whatever happened.
    pub fn assert_safe(&self) {
        for name in self.stored.datastores.keys() {
            let writable: Vec<String> = self
                .servers
                .iter()
                .filter(|(id, server)| {
                    id.datastore() == name
                        && server.primary
                        && server.process == ProcessState::Running
                        && match server.kind {
                            DatastoreKind::Postgres => server.admitted && server.names.is_empty(),
                            DatastoreKind::Redis => server.min_replicas < 99,
                        }
                })
                .map(|(id, _)| id.to_string())
                .collect();
            assert!(writable.len() <= 1, "two writers of {name}: {writable:?}\n{:#?}", self.log);
        }
    }

    pub fn last_end(&self, id: &OperationId) -> &Ended {
        let found = self.ended.iter().rev().find(|(activity, _)| activity.id == *id);
        &found.unwrap_or_else(|| panic!("{id} did not end: {:#?}", self.log)).1
    }

    pub fn step_verdict(&self, id: &OperationId, step: Step, of: Option<&str>) -> Verdict {
        let (activity, _) =
            self.ended.iter().rev().find(|(activity, _)| activity.id == *id).unwrap();
        let datastore = of.map(|name| name.parse().unwrap());
        activity.verdict(step, datastore.as_ref()).unwrap().clone()
    }
}

pub fn key(step: Step) -> StepKey {
    StepKey { step, datastore: None, route: None }
}
