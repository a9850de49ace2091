//! What goes wrong, what an operator does meanwhile, and what must be so in the end.

use std::time::Duration;

use tier0_core::lease::Reliance;
use tier0_core::observe::ProcessState;
use tier0_core::orchestrator::*;
use tier0_core::record::DatastoreKind;
use tier0_core::words::*;

use super::*;

impl Chaos {
    /// The orchestrator ends, or is only thought to have ended and goes on beside the next.
    pub(super) fn core_down(&mut self, goes_on: bool) {
        if self.core().is_none() {
            return;
        }
        self.counts.core_restarts += 1;
        self.say(|| format!("the orchestrator ends{}", if goes_on { ", it seems" } else { "" }));
        let run = self.core_run;
        if goes_on {
            self.counts.cores_beside += 1;
            let wait = self.random.between(100, 3_000) * MS;
            self.after(wait, Event::CoreEnds { run });
        } else {
            self.cores.remove(&run);
        }
        // What the old run sent goes on to its end; nobody hears of it any more.
        self.core_run += 1;
        let wait = self.random.between(1, 400) * MS;
        self.after(wait, Event::CoreUp);
    }

    pub(super) fn core_up(&mut self) {
        if self.core().is_some() {
            return;
        }
        self.counts.resumed += u64::from(self.stored.claim.is_some());
        let run = self.core_run;
        let core = Orchestrator::new(self.parameters.settings(), format!("run-{run}"));
        self.cores.insert(run, core);
        self.load(run);
    }

    pub(super) fn agent_down(&mut self, place: &Region) {
        let agent = self.agents.get_mut(place).unwrap();
        agent.up = false;
        agent.run += 1;
        agent.sequence = 0;
        agent.running.clear();
    }

    pub(super) fn agent_up(&mut self, place: &Region) {
        let boot = self.boot(place);
        let agent = self.agents.get_mut(place).unwrap();
        if !agent.gone && !agent.up {
            agent.up = true;
            let kept = agent.holder.reliance.until();
            let reliance = Reliance::resumed(kept, Chaos::LEASE, boot);
            agent.holder = Holder::new(self.now, boot, reliance);
        }
    }

    pub(super) fn any_region(&mut self) -> Region {
        region(if self.random.once_in(2) { "region1" } else { "region2" })
    }

    fn any_server(&mut self) -> NodeId {
        let which = self.random.below(self.servers.len() as u64) as usize;
        self.servers.keys().nth(which).unwrap().clone()
    }

    /// How many things are broken at the moment.
    fn broken(&self) -> usize {
        let servers = self.servers.values().filter(|server| !server.runs()).count();
        let agents =
            self.agents.values().filter(|agent| !agent.up || !agent.linked || agent.mute).count();
        servers + agents + usize::from(!self.stream_up) + usize::from(self.core().is_none())
    }

    /// Every 20 ms: perhaps something breaks, perhaps somebody presses a button. More buttons are
    /// pressed while the record changes: that is a bad moment.
    pub(super) fn go_wrong(&mut self) {
        self.counts.three_at_once += u64::from(self.broken() >= 3);
        let bad = !self.storing.is_empty() || self.stored.claim.is_some();
        let often = self.parameters.presses_once_in;
        if self.random.once_in(if bad { often.div_ceil(2) } else { often }) {
            self.press();
        }
        if self.random.once_in(self.parameters.breaks_once_in) {
            self.break_something();
        }
    }

    fn break_something(&mut self) {
        if self.is_shared() && self.random.once_in(2) {
            return self.break_an_orchestrator();
        }
        let place = self.any_region();
        match self.random.below(29) {
            0..=4 if self.is_shared() => self.break_an_orchestrator(),
            0..=4 => {
                let goes_on = self.random.once_in(4);
                self.core_down(goes_on);
            }
            5..=7 => {
                self.say(|| format!("agent of {place} ends"));
                self.counts.agent_restarts += 1;
                self.agent_down(&place);
                let wait = self.random.between(20, 600) * MS;
                self.after(wait, Event::AgentUp { region: place });
            }
            8..=10 => {
                self.say(|| format!("no way to the agent of {place}"));
                self.counts.links_cut += 1;
                self.agents.get_mut(&place).unwrap().linked = false;
                let wait = self.random.between(50, 2_500) * MS;
                self.after(wait, Event::LinkUp { region: place });
            }
            11..=12 => {
                self.say(|| format!("no way from the agent of {place}"));
                self.counts.links_cut += 1;
                self.agents.get_mut(&place).unwrap().mute = true;
                let wait = self.random.between(50, 2_500) * MS;
                self.after(wait, Event::LinkUp { region: place });
            }
            13..=15 => {
                self.say(|| "no way between the regions".to_owned());
                self.counts.links_cut += 1;
                self.stream_up = false;
                let wait = self.random.between(50, 5_000) * MS;
                self.after(wait, Event::StreamUp);
            }
            16..=19 => {
                let id = self.any_server();
                self.say(|| format!("{id} ends"));
                self.counts.servers_ended += 1;
                self.servers.get_mut(&id).unwrap().end();
            }
            20..=23 => {
                let id = self.any_server();
                self.say(|| format!("{id} freezes"));
                self.servers.get_mut(&id).unwrap().freeze();
                let wait = self.random.between(100, 4_000) * MS;
                self.after(wait, Event::Thaw { node: id });
            }
            24..=25 => {
                let id = self.any_server();
                self.lose_disk(&id);
            }
            26 => self.roll_back(),
            27 => {
                self.wall_offset += self.parameters.wall_jump * 1_000;
                self.counts.wall_jumps += 1;
            }
            _ => {
                self.kill(&place);
                let wait = self.random.between(300, 4_000) * MS;
                self.after(wait, Event::AgentUp { region: place });
            }
        }
    }

    /// A data directory is gone. Only where the other copy is known to hold everything, by the
    /// record and in truth: the loss of both copies is nobody's to prevent.
    fn lose_disk(&mut self, id: &NodeId) {
        let name = id.datastore();
        let writer = NodeId::new(name.clone(), self.stored.writer.clone());
        let quiet = self.stored.claim.is_none()
            && self.storing.is_empty()
            && self.went_back_from.is_none()
            && self.cores.values().all(|core| core.activities().count() == 0);
        let Some((node, member)) =
            self.stored.datastores[name].takeover.iter().next().filter(|_| quiet)
        else {
            return;
        };
        let (ours, theirs) = (&self.servers[&writer], &self.servers[node]);
        let names = member.name.to_string();
        let both = ours.is_primary()
            && ours.names == names
            && theirs.runs()
            && theirs.streaming
            && theirs.name == names
            && self.acknowledged.missing(name, &theirs.log).is_empty();
        if !both {
            return;
        }
        self.say(|| format!("the disk of {id} is lost"));
        self.counts.disks_lost += 1;
        self.servers.get_mut(id).unwrap().lose_disk();
    }

    pub fn kill(&mut self, place: &Region) {
        self.say(|| format!("{place} is killed"));
        self.counts.regions_killed += 1;
        self.agent_down(place);
        for (id, server) in &mut self.servers {
            if id.region() == place {
                server.end();
            }
        }
        self.site_killed(place);
    }

    pub(super) fn press(&mut self) {
        let writer = self.stored.writer.clone();
        let other = region(if writer == region("region1") { "region2" } else { "region1" });
        let what = match self.random.below(40) {
            0..=16 | 24.. => Asked::Move { target: other, consent: Consent::None },
            17 => Asked::Move { target: writer, consent: Consent::None },
            18 => Asked::Move { target: other, consent: Consent::AcceptLoss },
            19 => {
                // An operator who says that the old side is down has seen to it.
                self.agents.get_mut(&writer).unwrap().gone = true;
                self.kill(&writer);
                Asked::Move { target: other, consent: Consent::AcceptLossOldSideIsDown }
            }
            20..=21 => Asked::Rebuild { node: self.any_server() },
            22 => {
                let mode = self.parameters.mode;
                Asked::Arm { mode, lasting: Some(Duration::from_secs(3)) }
            }
            23 => Asked::Expose { datastore: "pg1".parse().unwrap() },
        };
        self.ask(what);
    }

    pub fn ask(&mut self, what: Asked) {
        self.say(|| format!("pressed {what:?}"));
        let id: OperationId = format!("aaaaaaaa-{:08}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let request = Request { id, what, by: "test".to_owned(), reason: "test".to_owned() };
        let input = Input::Asked(request);
        let acting = self.acting_run();
        let any = self.cores.keys().next().copied().unwrap_or(acting);
        let run = if self.is_shared() && self.core().is_none() { any } else { acting };
        self.after(0, Event::ToCore { run, input });
    }

    /// Everything that was broken works again, and the operator releases what is held.
    pub fn heal(&mut self) {
        self.wild = false;
        self.lying_until = 0;
        self.stream_up = true;
        self.say(|| "everything is healed".to_owned());
        for agent in self.agents.values_mut() {
            agent.gone = false;
            agent.linked = true;
            agent.mute = false;
        }
        for place in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.agent_up(&place);
        }
        self.servers.values_mut().for_each(Server::thaw);
        if self.is_shared() {
            return self.heal_sites();
        }
        let newest = self.core_run;
        self.cores.retain(|run, _| *run == newest);
        self.core_up();
    }

    /// What a person does about what no row repairs: release what is held, and move away from a
    /// writer whose data is gone.
    pub fn help(&mut self) {
        self.release_held();
        let gone = self
            .servers
            .iter()
            .any(|(id, server)| *id.region() == self.stored.writer && server.base == Base::Empty);
        if gone {
            // No row starts a standby that has nobody to follow: a person does.
            for (id, server) in &mut self.servers {
                let other = *id.region() != self.stored.writer;
                if other && server.base == Base::Standby && server.process == ProcessState::Stopped
                {
                    server.process = ProcessState::Running;
                }
            }
            let here = self.stored.writer == region("region1");
            let target = region(if here { "region2" } else { "region1" });
            // The member may have left just before, on what was seen before the disk was lost.
            let proven = |name: &DatastoreName| !self.stored.datastores[name].takeover.is_empty();
            let every = self.servers.iter().all(|(id, server)| {
                *id.region() != self.stored.writer
                    || server.base != Base::Empty
                    || proven(id.datastore())
            });
            let consent = if every { Consent::None } else { Consent::AcceptLoss };
            self.ask(Asked::Move { target, consent });
        }
    }

    fn release_held(&mut self) {
        for node in self.stored.held.keys().cloned().collect::<Vec<_>>() {
            self.ask(Asked::Rebuild { node });
        }
    }

    /// All is as it should be: two copies of everything, clients served in the writer's region.
    pub fn is_whole(&self) -> bool {
        let writer = &self.stored.writer;
        self.stored.claim.is_none()
            && self.core().is_some_and(|core| core.activities().count() == 0)
            && self.one_drives()
            && self.servers.iter().all(|(id, server)| {
                let primary = id.region() == writer;
                server.runs()
                    && !server.held
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
