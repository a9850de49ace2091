//! What goes wrong, what an operator does meanwhile, and what must be so in the end.

use tier0_core::orchestrator::*;
use tier0_core::record::DatastoreKind;
use tier0_core::words::*;

use super::*;

impl Chaos {
    pub(super) fn core_down(&mut self) {
        self.core = None;
        // What the old run sent goes on to its end; nobody hears of it any more.
        self.core_run += 1;
        self.counts.core_restarts += 1;
        self.say("the orchestrator ends".to_owned());
        let wait = self.random.between(1, 400) * MS;
        self.after(wait, Event::CoreUp);
    }

    pub(super) fn core_up(&mut self) {
        if self.core.is_some() {
            return;
        }
        self.counts.resumed += u64::from(self.stored.claim.is_some());
        let settings = settings(
            self.stored.datastores.values().filter(|it| it.kind == DatastoreKind::Postgres).count(),
            self.stored.datastores.values().filter(|it| it.kind == DatastoreKind::Redis).count(),
        );
        self.core = Some(Orchestrator::new(settings, format!("run-{}", self.core_run)));
        let record = self.stored.clone();
        self.hand_over(MS, Input::Loaded(record));
    }

    pub(super) fn agent_down(&mut self, place: &Region) {
        let agent = self.agents.get_mut(place).unwrap();
        agent.up = false;
        agent.run += 1;
        agent.sequence = 0;
        agent.running.clear();
    }

    pub(super) fn agent_up(&mut self, place: &Region) {
        let agent = self.agents.get_mut(place).unwrap();
        if !agent.gone {
            agent.up = true;
        }
    }

    pub(super) fn any_region(&mut self) -> Region {
        region(if self.random.once_in(2) { "region1" } else { "region2" })
    }

    /// Every 20 ms: perhaps something breaks, perhaps somebody presses a button.
    pub(super) fn go_wrong(&mut self) {
        if self.random.once_in(60) {
            self.press();
        }
        if !self.random.once_in(25) {
            return;
        }
        let place = self.any_region();
        match self.random.below(20) {
            0..=4 => {
                if self.core.is_some() {
                    self.core_down();
                }
            }
            5..=7 => {
                self.say(format!("agent of {place} ends"));
                self.counts.agent_restarts += 1;
                self.agent_down(&place);
                let wait = self.random.between(20, 600) * MS;
                self.after(wait, Event::AgentUp { region: place });
            }
            8..=10 => {
                self.say(format!("no way to the agent of {place}"));
                self.agents.get_mut(&place).unwrap().linked = false;
                let wait = self.random.between(50, 2_500) * MS;
                self.after(wait, Event::LinkUp { region: place });
            }
            11..=13 => {
                self.say("no way between the regions".to_owned());
                self.stream_up = false;
                let wait = self.random.between(50, 2_500) * MS;
                self.after(wait, Event::StreamUp);
            }
            14..=17 => {
                let ids: Vec<NodeId> = self.servers.keys().cloned().collect();
                let id = ids[self.random.below(ids.len() as u64) as usize].clone();
                self.say(format!("{id} ends"));
                self.counts.servers_ended += 1;
                self.servers.get_mut(&id).unwrap().end();
            }
            _ => {
                self.kill(&place);
                let wait = self.random.between(300, 4_000) * MS;
                self.after(wait, Event::AgentUp { region: place });
            }
        }
    }

    pub fn kill(&mut self, place: &Region) {
        self.say(format!("{place} is killed"));
        self.counts.regions_killed += 1;
        self.agent_down(place);
        for (id, server) in &mut self.servers {
            if id.region() == place {
                server.end();
            }
        }
    }

    pub(super) fn press(&mut self) {
        let place = self.any_region();
        let writer = self.stored.writer.clone();
        let what = match self.random.below(12) {
            0..=6 => Asked::Move { target: place, consent: Consent::None },
            7 => Asked::Move { target: place, consent: Consent::AcceptLoss },
            8 => {
                // An operator who says that the old side is down has seen to it.
                let target = if writer == region("region1") { "region2" } else { "region1" };
                self.agents.get_mut(&writer).unwrap().gone = true;
                self.kill(&writer);
                let consent = Consent::AcceptLossOldSideIsDown;
                Asked::Move { target: region(target), consent }
            }
            9..=10 => {
                let ids: Vec<NodeId> = self.servers.keys().cloned().collect();
                let id = ids[self.random.below(ids.len() as u64) as usize].clone();
                Asked::Rebuild { node: id }
            }
            _ => Asked::Expose { datastore: "pg1".parse().unwrap() },
        };
        self.ask(what);
    }

    pub fn ask(&mut self, what: Asked) {
        self.say(format!("pressed {what:?}"));
        let id: OperationId = format!("aaaaaaaa-{:08}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let request = Request { id, what, by: "test".to_owned(), reason: "test".to_owned() };
        self.hand_over(0, Input::Asked(request));
    }

    /// Everything that was broken works again, and the operator releases what is held.
    pub fn heal(&mut self) {
        self.wild = false;
        self.stream_up = true;
        self.say("everything is healed".to_owned());
        for agent in self.agents.values_mut() {
            agent.gone = false;
            agent.up = true;
            agent.linked = true;
        }
        self.core_up();
    }

    pub fn release_held(&mut self) {
        for node in self.stored.held.keys().cloned().collect::<Vec<_>>() {
            self.ask(Asked::Rebuild { node });
        }
    }

    /// All is as it should be: two copies of everything, clients served in the writer's region.
    pub fn is_whole(&self) -> bool {
        let writer = &self.stored.writer;
        self.stored.claim.is_none()
            && self.core.as_ref().is_some_and(|core| core.activities().count() == 0)
            && self.servers.iter().all(|(id, server)| {
                let primary = id.region() == writer;
                server.runs()
                    && (server.base == Base::Primary) == primary
                    && match server.kind {
                        DatastoreKind::Postgres if primary => server.admitted,
                        DatastoreKind::Postgres => server.streaming,
                        DatastoreKind::Redis => !primary || server.min_replicas < 99,
                    }
            })
            && self.stored.datastores.values().all(|datastore| {
                datastore.kind == DatastoreKind::Redis || datastore.takeover.len() == 1
            })
    }

    /// Every write that somebody was told of is on the writer.
    pub fn assert_nothing_lost(&self) {
        for (name, datastore) in &self.stored.datastores {
            if datastore.kind == DatastoreKind::Postgres {
                let writer = NodeId::new(name.clone(), self.stored.writer.clone());
                let missing = self.acknowledged.missing(name, &self.servers[&writer].log);
                assert!(missing.is_empty(), "{writer} lacks {} writes", missing.len());
            }
        }
    }
}
