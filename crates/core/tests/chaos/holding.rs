//! Agents as holders of leases: each with a clock of its own, asking its peer when no grant comes,
//! holding, releasing and ending its servers; and what must be so of it.
//!
//! What is promised holds while an agent runs. One that was killed holds nobody; one that has just
//! begun takes it, for one lease, that its predecessor had just been granted one.

use std::time::Duration;

use tier0_core::lease::{Boot, Holding, Knows, Lease, Reliance, Server as Seen, Standing, holding};
use tier0_core::observe::ProcessState;
use tier0_core::record::DatastoreKind;

use super::*;

/// How often an agent looks how its region stands.
pub(super) const LOOK: u64 = 25 * MS;

/// After this long nothing of an agent's beginning is left, however its clock runs.
const SETTLED: u64 = 1_300 * MS;

/// How long a region that its peer could vouch for all the time may at least go on.
const VOUCHED: u64 = 1_700 * MS;

/// How long it may take until a standing is acted on.
const ACTED: u64 = 4 * LOOK;

/// What a poll tells an agent.
#[derive(Debug, Clone)]
pub struct Told {
    pub heard: Option<Heard>,
    pub writer: Option<Region>,
    pub alone: bool,
    /// The stamp that is echoed, and of which run of the agent it is.
    pub grant: Option<(u64, u64)>,
}

/// A question to a peer, or its answer.
#[derive(Debug, Clone)]
pub struct Question {
    asker: Region,
    run: u64,
    asked: Boot,
    heard: Heard,
}

/// How an agent stands by itself.
#[derive(Debug, Clone)]
pub struct Holder {
    pub lease: Lease,
    pub reliance: Reliance,
    /// Since when this run of the agent runs.
    pub since: u64,
    /// This run was told that its region is the writer; or was told nothing.
    pub led: Option<bool>,
    asks_again: u64,
    vouchable_since: Option<u64>,
    standing_since: u64,
    standing: Standing,
}

impl Holder {
    pub fn new(now: u64, boot: Boot, reliance: Reliance) -> Holder {
        Holder {
            lease: Lease::new(Chaos::LEASE, boot),
            reliance,
            since: now,
            led: None,
            asks_again: 0,
            vouchable_since: None,
            standing_since: now,
            standing: Standing::Ending,
        }
    }
}

impl Chaos {
    pub const LEASE: Duration = Duration::from_secs(1);

    /// An agent's clock since its machine booted: beside the orchestrator's, and a little off.
    pub fn boot(&self, place: &Region) -> Boot {
        let which = usize::from(place.as_str() != "region1");
        let rate = self.parameters.clock_rate * self.parameters.holder_rates[which];
        let passed = (self.now - self.clock_from) * rate / 1_000_000;
        Boot::from_stamp(self.clock_from + passed)
    }

    /// What an orchestrator tells an agent now. Only one run can have the store open, so that an
    /// older one that goes on grants nothing.
    pub(super) fn told_by(&self, run: u64, place: &Region) -> Told {
        if self.is_shared() {
            return self.told_by_one(run, place);
        }
        let core = &self.cores[&run];
        let granted = run == self.core_run && core.grants() == Some(place);
        Told {
            heard: core.record().map(Record::heard),
            writer: core.record().map(|record| record.writer.clone()),
            alone: core.is_alone(),
            grant: self.stamps_of.get(&(run, place.clone())).copied().filter(|_| granted),
        }
    }

    /// A poll came in: as the agent's desk takes it.
    pub(super) fn takes_lease(&mut self, place: &Region, told: &Told) {
        let boot = self.boot(place);
        let agent = self.agents.get_mut(place).unwrap();
        let (Some(news), Some(writer)) = (&told.heard, &told.writer) else { return };
        if agent.heard.as_ref() != Some(news) {
            return;
        }
        let here = writer == place;
        agent.holder.led = Some(here || agent.holder.led == Some(true));
        agent.holder.lease.told(news.epoch, place, writer.clone(), told.alone);
        if let Some((_, stamp)) = told.grant.filter(|(run, _)| *run == agent.run) {
            self.counts.grants += 1;
            agent.holder.lease.granted(Boot::from_stamp(stamp), Chaos::LEASE, boot);
        }
    }

    /// A command that is obeyed: what it says of the lease, and how long it must wait for a peer
    /// that relies on this agent.
    pub(super) fn takes_on(&mut self, command: &Command) -> u64 {
        let place = command.node.region().clone();
        let boot = self.boot(&place);
        let holder = &mut self.agents.get_mut(&place).unwrap().holder;
        if command.order.only_looks() {
            return 0;
        }
        holder.lease.obeys(&place, command);
        let delay = holder.reliance.delay(command, boot).as_micros() as u64;
        self.counts.delayed += u64::from(delay > 0);
        // Its own clock counts.
        delay * 1_000 / self.parameters.clock_rate * 1_000 / 980 + u64::from(delay > 0)
    }

    fn servers_of(&self, place: &Region) -> Vec<NodeId> {
        self.servers.keys().filter(|id| id.region() == place).cloned().collect()
    }

    /// A server as the agent of its region takes it, to hold it: one that is just being stopped or
    /// made a standby is left to that.
    fn as_held(&self, id: &NodeId) -> Seen {
        match self.as_seen(id) {
            Seen::Writes | Seen::Fenced if self.is_being_ended(id) => Seen::Other,
            other => other,
        }
    }

    fn is_being_ended(&self, id: &NodeId) -> bool {
        let agent = &self.agents[id.region()];
        let Some(obeyed) = agent.obeyed.get(id) else { return false };
        let ends = matches!(
            obeyed.command.order,
            Order::PostgresStop | Order::PostgresFollow { .. } | Order::RedisFollow { .. }
        );
        let begun = agent.begins.get(id).is_some_and(|begins| self.now >= *begins);
        ends && begun && agent.running.get(id) == Some(&obeyed.command.stamp)
    }

    /// A server as the agent of its region sees it. One that answers nothing is what it was.
    fn as_seen(&self, id: &NodeId) -> Seen {
        let server = &self.servers[id];
        let there = matches!(server.process, ProcessState::Running | ProcessState::Silent);
        let writes = there && server.base == Base::Primary;
        let fenced = server.kind == DatastoreKind::Redis && server.min_replicas >= 99;
        match (server.held, writes) {
            (true, _) => Seen::Held,
            (false, true) if fenced => Seen::Fenced,
            (false, true) => Seen::Writes,
            (false, false) => Seen::Other,
        }
    }

    /// Every 25 ms each agent looks how its region stands.
    pub(super) fn look_at_leases(&mut self) {
        for place in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.note_vouchable(&place);
            if !self.agents[&place].up {
                continue;
            }
            let boot = self.boot(&place);
            let agent = &self.agents[&place];
            let standing = agent.holder.lease.standing(&place, agent.heard.as_ref(), boot);
            self.check_acted(&place, standing);
            for id in self.servers_of(&place) {
                let what = holding(standing, self.as_held(&id));
                self.settle(&id, what);
            }
            self.ask_peer(&place);
        }
    }

    fn settle(&mut self, id: &NodeId, what: Holding) {
        if what != Holding::Leave {
            self.say(|| format!("{what:?} {id}"));
        }
        let now = self.now;
        match what {
            Holding::Leave => {}
            Holding::Hold => {
                self.counts.held += 1;
                self.check_not_vouched(id);
                let server = self.servers.get_mut(id).unwrap();
                server.held = true;
                server.held_since = now;
                server.still = true;
            }
            Holding::Release => {
                self.counts.released += 1;
                let server = self.servers.get_mut(id).unwrap();
                server.held = false;
                server.still = false;
            }
            Holding::End => {
                self.counts.held_ended += 1;
                let server = self.servers.get_mut(id).unwrap();
                server.held = false;
                server.end();
            }
        }
    }

    fn ask_peer(&mut self, place: &Region) {
        let boot = self.boot(place);
        let agent = &self.agents[place];
        let Some(heard) = agent.heard.clone() else { return };
        let asks = agent.holder.lease.asks(place, &heard, boot);
        if !asks || self.now < agent.holder.asks_again {
            return;
        }
        if !self.has_writing(place) {
            return;
        }
        let question = Question { asker: place.clone(), run: agent.run, asked: boot, heard };
        let wait = self.crossing();
        self.agents.get_mut(place).unwrap().holder.asks_again = self.now + 125 * MS;
        if self.stream_up {
            self.after(wait, Event::Asked { question });
        }
    }

    /// Whether a server of a region writes, or did: only then its agent asks.
    fn has_writing(&self, place: &Region) -> bool {
        self.servers_of(place)
            .iter()
            .any(|id| matches!(self.as_seen(id), Seen::Writes | Seen::Fenced | Seen::Held))
    }

    /// How long a question or its answer takes between the regions.
    fn crossing(&mut self) -> u64 {
        let slow = self.wild && self.random.once_in(10);
        if slow { self.random.between(1, 100) * MS } else { self.random.between(100, 3 * MS) }
    }

    /// A peer's question comes in.
    pub(super) fn asked(&mut self, question: Question) {
        let place = self.agents.keys().find(|place| **place != question.asker).unwrap().clone();
        if !self.agents[&place].up || !self.stream_up {
            return;
        }
        let boot = self.boot(&place);
        let writes = |id: &NodeId| matches!(self.as_seen(id), Seen::Writes);
        let here = self.servers_of(&place).iter().any(writes);
        let here = if here { Seen::Writes } else { Seen::Other };
        let agent = self.agents.get_mut(&place).unwrap();
        let (heard, holder) = (agent.heard.as_ref(), &mut agent.holder);
        let knows = Knows { region: &place, lease: &holder.lease, heard, here };
        let (lineage, epoch) = (&question.heard.lineage, question.heard.epoch);
        if !holder.reliance.confirm(&knows, lineage, epoch, Chaos::LEASE, boot) {
            return;
        }
        self.counts.confirmed += 1;
        let wait = self.crossing();
        self.after(wait, Event::Confirmed { question });
    }

    /// The peer said yes.
    pub(super) fn confirmed(&mut self, question: Question) {
        if !self.stream_up {
            return;
        }
        let agent = self.agents.get_mut(&question.asker).unwrap();
        let same = agent.heard.as_ref().is_some_and(|heard| {
            heard.epoch == question.heard.epoch && heard.lineage == question.heard.lineage
        });
        if agent.up && agent.run == question.run && same {
            agent.holder.lease.confirmed(question.asked);
            agent.holder.asks_again = 0;
        }
    }

    /// The time for which a peer could have vouched for a region that asks. A server that was started a
    /// moment ago while no grant came may be held for as long as a question takes. So may one whose
    /// standby is about to join, where the orchestrator that acts was cut off and is back: it grants
    /// nothing before it has read the store, and while there was one copy nobody asked.
    fn note_vouchable(&mut self, place: &Region) {
        let epoch = |agent: &Agent| agent.heard.as_ref().map(|heard| heard.epoch);
        let could = self.has_writing(place)
            && self.stream_up
            && !(self.is_shared() && self.has_one_copy())
            && self.agents.values().all(|agent| agent.up)
            && self.agents.values().all(|agent| epoch(agent) == Some(self.authority().epoch))
            && self.authority().writer == *place
            && self
                .servers
                .keys()
                .all(|id| id.region() == place || !matches!(self.as_seen(id), Seen::Writes));
        let now = self.now;
        let since = &mut self.agents.get_mut(place).unwrap().holder.vouchable_since;
        *since = could.then(|| since.unwrap_or(now));
    }

    /// Nobody can be promoted, by the record.
    fn has_one_copy(&self) -> bool {
        self.authority().datastores.values().all(|datastore| datastore.takeover.is_empty())
    }

    /// A control plane outage never stops a healthy writer (L4).
    fn check_not_vouched(&self, id: &NodeId) {
        let holder = &self.agents[id.region()].holder;
        let vouched = holder.vouchable_since.is_some_and(|since| self.now - since > VOUCHED);
        assert!(!vouched, "{id} is held, and the other region could have vouched for it");
    }

    /// What an agent knows of its standing is so of its servers soon after: held where nobody
    /// vouches, released where somebody does, ended where another region is the writer (L2).
    fn check_acted(&mut self, place: &Region, standing: Standing) {
        let now = self.now;
        let holder = &mut self.agents.get_mut(place).unwrap().holder;
        if holder.standing != standing {
            holder.standing = standing;
            holder.standing_since = now;
        }
        if now - holder.standing_since.max(holder.since) < ACTED {
            return;
        }
        for id in self.servers_of(place) {
            let server = &self.servers[&id];
            let held = server.held && now - server.held_since >= ACTED;
            let wrong = match standing {
                Standing::Over => false,
                Standing::Holds | Standing::Ending | Standing::Lost | Standing::Past => held,
            };
            assert!(!wrong, "{id} is held, and its region stands {standing:?}");
        }
    }

    /// Whether an agent answers for what its servers do.
    fn answers_for(&self, place: &Region) -> bool {
        let agent = &self.agents[place];
        agent.up && self.now - agent.holder.since > SETTLED && agent.holder.led != Some(false)
    }

    /// A server began to serve as the writer's, by a command of this epoch.
    pub(super) fn serves_from(&mut self, id: &NodeId, epoch: Epoch) {
        let name = id.datastore().clone();
        let newest = self.serves.entry(name).or_insert(Epoch::FIRST);
        let late = epoch < *newest;
        if !self.loss_accepted {
            *newest = (*newest).max(epoch);
        }
        self.counts.late_starts += u64::from(late);
        let server = self.servers.get_mut(id).unwrap();
        server.serves_in = epoch;
        server.late = late;
    }

    /// Nobody reads from an old primary what a newer one may have overwritten, and no old master
    /// takes a write beside a newer one (L3), while the agent beside it runs.
    pub(super) fn check_superseded(&mut self, id: &NodeId) {
        let server = &self.servers[id];
        let newest = self.serves.get(id.datastore()).copied().unwrap_or(Epoch::FIRST);
        self.counts.reads += 1;
        if server.serves_in >= newest || server.late || !self.answers_for(id.region()) {
            return;
        }
        if self.is_being_ended(id) {
            return;
        }
        let agent = &self.agents[id.region()];
        panic!(
            "{id} of epoch {} still serves, and another has in epoch {newest}: its agent stands {:?}",
            server.serves_in,
            agent.holder.lease.standing(id.region(), agent.heard.as_ref(), self.boot(id.region())),
        );
    }
}
