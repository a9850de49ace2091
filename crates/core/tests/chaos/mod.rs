//! A world in which everything goes wrong at any moment: commands are late, lost and doubled,
//! answers of the store get lost, agents and servers end, links break, regions die, the
//! orchestrator begins anew, and operators press every button. Time is virtual, and everything
//! follows from one seed.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

mod faults;
mod serve;
mod servers;
mod view;

use std::cell::RefCell;
use std::collections::BTreeMap;

use tier0_core::agent::{Judgement, Obeyed, hear, heard_in, judge};
use tier0_core::observe::{AgentReport, NodeReport};
use tier0_core::orchestrator::*;
use tier0_core::order::{Command, Outcome};
use tier0_core::record::{Automatic, AutomaticMode, ClaimPhase, DatastoreKind, Record};
use tier0_core::steps::{Step, StepKey};
use tier0_core::words::*;

pub use servers::{Acknowledged, Base, Server};

use crate::world::{region, settings};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// xorshift64*.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }
}

/// Who waits for the outcome of a command.
#[derive(Debug, Clone)]
struct Reply {
    core_run: u64,
    operation: OperationId,
    key: StepKey,
}

#[derive(Debug, Clone)]
enum Event {
    ToCore { core_run: u64, input: Input },
    Poll { region: Region },
    PollArrives { region: Region, heard: Option<Heard>, core_run: u64 },
    Command { agent_run: u64, command: Command, reply: Reply },
    Work { work: Work },
    Tick,
    Beat,
    CoreUp,
    AgentUp { region: Region },
    LinkUp { region: Region },
    StreamUp,
}

/// A command that an agent is about to have performed.
#[derive(Debug, Clone)]
struct Work {
    agent_run: u64,
    command: Command,
    until: u64,
    since: u64,
    /// Its effect came at once, and only the outcome is still to be kept.
    early: Option<Outcome>,
    reply: Reply,
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub run: u64,
    pub up: bool,
    /// Commands and polls reach it.
    pub linked: bool,
    /// It stays dead until everything is healed.
    pub gone: bool,
    pub heard: Option<Heard>,
    pub obeyed: BTreeMap<NodeId, Obeyed>,
    running: BTreeMap<NodeId, Stamp>,
    pub sequence: u64,
}

/// What a seed came across.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub moves_succeeded: u64,
    pub moves_aborted: u64,
    pub moves_refused: u64,
    pub moves_closed: u64,
    pub swaps: u64,
    pub swaps_with_loss_accepted: u64,
    pub core_restarts: u64,
    pub resumed: u64,
    pub store_unknown: u64,
    pub agent_restarts: u64,
    pub regions_killed: u64,
    pub servers_ended: u64,
    pub commands: u64,
    pub doubled: u64,
    pub joins: u64,
    pub leaves: u64,
}

#[derive(Clone)]
pub struct Chaos {
    pub seed: u64,
    pub random: Random,
    pub core: Option<Orchestrator>,
    core_run: u64,
    pub stored: Record,
    pub servers: BTreeMap<NodeId, Server>,
    pub agents: BTreeMap<Region, Agent>,
    pub stream_up: bool,
    pub now: u64,
    fresh: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    writes: u32,
    pub acknowledged: Acknowledged,
    pub counts: Counts,
    /// Whether anything goes wrong.
    pub wild: bool,
    /// Whom the swap of the newest epoch allows to be promoted, and whether loss was accepted.
    at_swap: BTreeMap<DatastoreName, bool>,
    loss_accepted: bool,
    /// What a promoted Redis lacks of what its datastore acknowledged.
    redis_lacks: BTreeMap<DatastoreName, usize>,
}

thread_local! {
    /// What happened, for people; beside the world, so that it is still there after a panic.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The newest lines of what happened.
pub fn said() -> String {
    SAID.with_borrow(|said| said[said.len().saturating_sub(250)..].join("\n"))
}

/// A new day begins.
pub fn forget() {
    SAID.with_borrow_mut(Vec::clear);
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.moves_succeeded, other.moves_succeeded),
            (&mut self.moves_aborted, other.moves_aborted),
            (&mut self.moves_refused, other.moves_refused),
            (&mut self.moves_closed, other.moves_closed),
            (&mut self.swaps, other.swaps),
            (&mut self.swaps_with_loss_accepted, other.swaps_with_loss_accepted),
            (&mut self.core_restarts, other.core_restarts),
            (&mut self.resumed, other.resumed),
            (&mut self.store_unknown, other.store_unknown),
            (&mut self.agent_restarts, other.agent_restarts),
            (&mut self.regions_killed, other.regions_killed),
            (&mut self.servers_ended, other.servers_ended),
            (&mut self.commands, other.commands),
            (&mut self.doubled, other.doubled),
            (&mut self.joins, other.joins),
            (&mut self.leaves, other.leaves),
        ];
        for (mine, theirs) in pairs {
            *mine += theirs;
        }
    }
}

impl Chaos {
    pub fn new(postgres: usize, redis: usize) -> Chaos {
        let settings = settings(postgres, redis);
        let stored = first_record(
            settings.stack.clone(),
            &settings.shape,
            "11111111-0000".parse().unwrap(),
            "nobody".to_owned(),
            Automatic { mode: AutomaticMode::Off, ..Automatic::default() },
            WallMillis(0),
        );
        let mut servers = BTreeMap::new();
        for (name, datastore) in &settings.shape.datastores {
            for place in &settings.shape.regions {
                let server = Server::new(datastore.kind, place.as_str() == "region1");
                servers.insert(NodeId::new(name.clone(), place.clone()), server);
            }
        }
        let agent = Agent {
            run: 1,
            up: true,
            linked: true,
            gone: false,
            heard: None,
            obeyed: BTreeMap::new(),
            running: BTreeMap::new(),
            sequence: 0,
        };
        let regions = settings.shape.regions.clone();
        let mut chaos = Chaos {
            seed: 0,
            random: Random::new(1),
            core: Some(Orchestrator::new(settings, "run-0".to_owned())),
            core_run: 0,
            stored: stored.clone(),
            servers,
            agents: regions.iter().map(|place| (place.clone(), agent.clone())).collect(),
            stream_up: true,
            now: SECOND,
            fresh: 1,
            queue: BTreeMap::new(),
            order: 0,
            writes: 0,
            acknowledged: Acknowledged::default(),
            counts: Counts::default(),
            wild: false,
            at_swap: BTreeMap::new(),
            loss_accepted: false,
            redis_lacks: BTreeMap::new(),
        };
        chaos.hand_over(0, Input::Loaded(stored));
        for place in regions {
            chaos.after(0, Event::Poll { region: place });
        }
        chaos.after(0, Event::Tick);
        chaos.after(0, Event::Beat);
        chaos
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), event);
    }

    fn hand_over(&mut self, wait: u64, input: Input) {
        let core_run = self.core_run;
        self.after(wait, Event::ToCore { core_run, input });
    }

    fn say(&mut self, line: String) {
        let at = self.now / MS;
        SAID.with_borrow_mut(|said| said.push(format!("{at:>9} {line}")));
    }

    /// Let time pass until `end`, or until `done` says so.
    pub fn run(&mut self, time: u64, done: impl Fn(&Chaos) -> bool) -> bool {
        let end = self.now + time;
        let mut looked = self.now;
        while let Some((&(at, order), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let event = self.queue.remove(&(at, order)).unwrap();
            self.now = at;
            self.happen(event);
            if self.now - looked >= 20 * MS {
                looked = self.now;
                if done(self) {
                    return true;
                }
                if self.wild {
                    self.go_wrong();
                }
            }
        }
        self.now = end;
        done(self)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToCore { core_run, input } => {
                if core_run == self.core_run {
                    self.step(input);
                }
            }
            Event::Tick => {
                self.after(40 * MS, Event::Tick);
                self.step(Input::Tick);
            }
            Event::Beat => {
                self.after(5 * MS, Event::Beat);
                self.beat();
            }
            Event::Poll { region } => {
                self.after(150 * MS, Event::Poll { region: region.clone() });
                self.poll(&region);
            }
            Event::PollArrives { region, heard, core_run } => {
                self.poll_arrives(&region, heard, core_run);
            }
            Event::Command { agent_run, command, reply } => {
                self.command_arrives(agent_run, command, reply);
            }
            Event::Work { work } => self.work(work),
            Event::CoreUp => self.core_up(),
            Event::AgentUp { region } => self.agent_up(&region),
            Event::LinkUp { region } => {
                self.agents.get_mut(&region).unwrap().linked = true;
            }
            Event::StreamUp => self.stream_up = true,
        }
    }

    fn step(&mut self, input: Input) {
        let Some(mut core) = self.core.take() else { return };
        let fresh = format!("bbbbbbbb-{:08}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let now = Now {
            moment: Moment::from_micros(self.now),
            wall: WallMillis(self.now as i64 / 1000),
            fresh,
        };
        let before = core.record().map(Record::heard);
        let effects = core.step(&now, input);
        let changed = core.record().map(Record::heard) != before;
        self.core = Some(core);
        for effect in effects {
            self.perform(effect);
        }
        if changed {
            for place in self.agents.keys().cloned().collect::<Vec<_>>() {
                self.poll(&place);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Store { expected, next } => self.store(&expected, *next),
            Effect::Load => {
                let wait = self.random.between(1, 20) * MS;
                // A read is linearizable: it sees what is there when it is made.
                let record = self.stored.clone();
                self.hand_over(wait, Input::Loaded(record));
            }
            Effect::Send { operation, key, command } => self.send(operation, key, command),
            Effect::Ended { activity, ended } => self.ended(&activity, &ended),
            Effect::HeldBack(near_miss) => self.say(near_miss.sentence),
            Effect::Refused { refusal, .. } => {
                self.say(format!("refused {}", refusal.code));
                self.counts.moves_refused += 1;
            }
            Effect::Explain { row, subject, .. } => self.say(format!("row {row} {subject}")),
            Effect::Note(_) | Effect::Began(_) => {}
        }
    }

    fn store(&mut self, expected: &Heard, next: Record) {
        let lost = self.wild && self.random.once_in(12);
        let reached = !lost || self.random.once_in(2);
        let mut answer = StoreAnswer::Stored;
        if reached {
            if self.stored.heard() == *expected {
                self.check_successor(&next);
                self.stored = next;
            } else {
                answer = StoreAnswer::Lost { current: Box::new(self.stored.clone()) };
            }
        }
        if lost {
            self.counts.store_unknown += 1;
            answer = StoreAnswer::Unknown { why: "no answer".to_owned() };
        }
        let wait = self.random.between(1, 15) * MS;
        self.hand_over(wait, Input::Stored(answer));
    }

    /// Epoch and revision only grow, and the writer changes only with the epoch.
    fn check_successor(&mut self, next: &Record) {
        let before = &self.stored;
        assert_eq!(next.revision, before.revision.next(), "seed {}", self.seed);
        assert!(next.epoch >= before.epoch && next.epoch <= before.epoch.next());
        assert_eq!(next.writer != before.writer, next.epoch != before.epoch);
        let line = format!(
            "stored e{} r{} writer {} claim {:?}",
            next.epoch,
            next.revision,
            next.writer,
            next.claim.as_ref().map(|claim| (claim.kind, claim.phase, claim.accept_loss))
        );
        for (name, datastore) in &next.datastores {
            let (was, is) = (&before.datastores[name].takeover, &datastore.takeover);
            self.counts.joins += u64::from(was.is_empty() && !is.is_empty());
            self.counts.leaves += u64::from(!was.is_empty() && is.is_empty());
        }
        if next.epoch != before.epoch {
            let claim = next.claim.as_ref().unwrap();
            assert_eq!(claim.phase, ClaimPhase::After);
            self.loss_accepted = claim.accept_loss;
            self.counts.swaps += 1;
            self.counts.swaps_with_loss_accepted += u64::from(claim.accept_loss);
            self.at_swap = before
                .datastores
                .iter()
                .map(|(name, datastore)| {
                    let node = NodeId::new(name.clone(), next.writer.clone());
                    (name.clone(), datastore.takeover.contains_key(&node))
                })
                .collect();
            for (name, proven) in &self.at_swap {
                let postgres = next.datastores[name].kind == DatastoreKind::Postgres;
                assert!(
                    *proven || claim.accept_loss || !postgres,
                    "seed {}: the writer moves, {name} has no member there, and nobody consented",
                    self.seed
                );
            }
        }
        self.say(line);
    }

    fn ended(&mut self, activity: &Activity, ended: &Ended) {
        self.say(format!("ended {} {} {ended:?}", activity.kind, activity.id));
        if !activity.kind.moves_writer() {
            return;
        }
        match ended {
            Ended::Succeeded => self.counts.moves_succeeded += 1,
            Ended::Refused { .. } => self.counts.moves_refused += 1,
            Ended::Aborted { .. } => self.counts.moves_aborted += 1,
            Ended::WithExceptions { .. } | Ended::Failed { .. } | Ended::Unknown { .. } => {
                self.counts.moves_closed += 1;
            }
        }
        if *ended == Ended::Succeeded && activity.phase == ClaimPhase::After {
            // What it says must be so: every datastore was promoted in this epoch.
            for state in &activity.steps {
                let promotes = matches!(state.key.step, Step::Promote | Step::PromoteRedis);
                let done = matches!(
                    &state.progress,
                    Progress::Settled { verdict: Verdict::Done { .. }, .. }
                );
                assert!(!promotes || done, "succeeded, and {} is {:?}", state.key, state.progress);
            }
        }
        for (name, lacks) in self.redis_lacks.clone() {
            let done =
                |step| matches!(activity.verdict(step, Some(&name)), Some(Verdict::Done { .. }));
            let planned = done(Step::Fence) && done(Step::PromoteRedis);
            let equal = matches!(
                activity.verdict(Step::CatchUpFenced, Some(&name)),
                Some(Verdict::Done { .. } | Verdict::Skipped { .. })
            ) && done(Step::CatchUp);
            assert!(
                !(planned && equal) || lacks == 0 || *ended != Ended::Succeeded,
                "{name} was paused, fenced and equal, and {lacks} writes are missing"
            );
        }
        self.redis_lacks.clear();
    }

    fn send(&mut self, operation: OperationId, key: StepKey, command: Command) {
        self.counts.commands += 1;
        self.say(format!("send {key} {} {}", command.node, command.stamp));
        let reply = Reply { core_run: self.core_run, operation, key };
        let agent = &self.agents[command.node.region()];
        let (agent_run, reachable, up) = (agent.run, agent.linked, agent.up);
        let given_up = (command.limit_ms + 100) * MS;
        if !up {
            let outcome = Outcome::Unknown { why: "no connection".to_owned() };
            self.answer(MS, &reply, &command.stamp, outcome);
            return;
        }
        let outcome = Outcome::Unknown { why: "no outcome in time".to_owned() };
        self.answer(given_up, &reply, &command.stamp, outcome);
        let mut wait = self.random.between(100, 3 * MS);
        if self.wild && self.random.once_in(25) {
            wait += self.random.between(1, 2_000) * MS;
        }
        if !reachable {
            // What was sent into a broken link comes out of it when it is whole again.
            wait += self.random.between(1, 3_000) * MS;
        }
        if self.wild && self.random.once_in(15) {
            self.counts.doubled += 1;
            let later = wait + self.random.between(1, 3_000) * MS;
            let (command, reply) = (command.clone(), reply.clone());
            self.after(later, Event::Command { agent_run, command, reply });
        }
        self.after(wait, Event::Command { agent_run, command, reply });
    }

    fn answer(&mut self, wait: u64, reply: &Reply, stamp: &Stamp, outcome: Outcome) {
        let input = Input::Outcome {
            operation: reply.operation.clone(),
            key: reply.key.clone(),
            stamp: stamp.clone(),
            outcome,
        };
        let core_run = reply.core_run;
        self.after(wait, Event::ToCore { core_run, input });
    }

    /// A command comes in: judged and kept exactly as the agent's desk does it.
    fn command_arrives(&mut self, agent_run: u64, command: Command, reply: Reply) {
        let agent = self.agents.get_mut(command.node.region()).unwrap();
        if !agent.up || agent.run != agent_run {
            let outcome = Outcome::Unknown { why: "the connection broke".to_owned() };
            return self.answer(MS, &reply, &command.stamp, outcome);
        }
        let judged = judge(agent.heard.as_ref(), agent.obeyed.get(&command.node), &command);
        let again = match judged {
            Judgement::Answer(outcome) => {
                return self.answer(MS, &reply, &command.stamp, outcome);
            }
            Judgement::Refuse(refusal) => {
                let outcome = Outcome::Refused { refusal };
                return self.answer(MS, &reply, &command.stamp, outcome);
            }
            Judgement::Again if agent.running.get(&command.node) == Some(&command.stamp) => return,
            Judgement::Again => true,
            Judgement::Obey => false,
        };
        if !command.order.only_looks() {
            if let Some(heard) = hear(agent.heard.as_ref(), &heard_in(&command.stamp)) {
                agent.heard = Some(heard);
            }
            let obeyed = Obeyed { command: command.clone(), outcome: None };
            agent.obeyed.insert(command.node.clone(), obeyed);
        }
        // A newer command ends the one that runs.
        agent.running.insert(command.node.clone(), command.stamp.clone());
        let until = self.now + command.limit_ms * MS;
        let takes = self.random.between(1, 40) * MS;
        let early = if again || self.random.once_in(2) {
            self.serve(&command, self.now).map(|outcome| {
                self.say(format!("early {} {} {outcome}", command.step, command.node));
                outcome
            })
        } else {
            None
        };
        let work = Work { agent_run, command, until, since: self.now, early, reply };
        self.after(takes, Event::Work { work });
    }

    fn work(&mut self, mut work: Work) {
        let node = work.command.node.clone();
        let agent = &self.agents[node.region()];
        let stamp = work.command.stamp.clone();
        if !agent.up || agent.run != work.agent_run {
            let outcome = Outcome::Unknown { why: "the connection broke".to_owned() };
            return self.answer(MS, &work.reply, &stamp, outcome);
        }
        if agent.running.get(&node) != Some(&stamp) {
            let outcome = Outcome::Unknown { why: "a newer command ended it".to_owned() };
            return self.answer(MS, &work.reply, &stamp, outcome);
        }
        let outcome = match work.early.take() {
            Some(outcome) => outcome,
            None => match self.serve(&work.command, work.since) {
                Some(outcome) => outcome,
                None if self.now >= work.until => {
                    Outcome::Failed { why: "not within the limit".to_owned() }
                }
                None => return self.after(10 * MS, Event::Work { work }),
            },
        };
        self.say(format!("outcome {} {node} {stamp} {outcome}", work.command.step));
        let agent = self.agents.get_mut(node.region()).unwrap();
        agent.running.remove(&node);
        if !work.command.order.only_looks() {
            let newest = agent.obeyed.get(&node).map(|obeyed| &obeyed.command.stamp);
            if newest == Some(&stamp) {
                let obeyed =
                    Obeyed { command: work.command.clone(), outcome: Some(outcome.clone()) };
                agent.obeyed.insert(node, obeyed);
            }
        }
        if self.agents[work.command.node.region()].linked {
            let wait = self.random.between(100, 3 * MS);
            self.answer(wait, &work.reply, &stamp, outcome);
        } else {
            // The question is asked again every five seconds, and then the break is noticed.
            let outcome = Outcome::Unknown { why: "the connection broke".to_owned() };
            self.answer(5 * SECOND, &work.reply, &stamp, outcome);
        }
    }

    fn poll(&mut self, place: &Region) {
        let Some(core) = &self.core else { return };
        let heard = core.record().map(Record::heard);
        let agent = &self.agents[place];
        let why = || "no connection".to_owned();
        if !agent.up {
            let input = Input::Missed { region: place.clone(), why: why() };
            return self.hand_over(MS, input);
        }
        if !agent.linked {
            let input = Input::Missed { region: place.clone(), why: why() };
            return self.hand_over(SECOND, input);
        }
        let wait = self.random.between(100, 3 * MS);
        let core_run = self.core_run;
        self.after(wait, Event::PollArrives { region: place.clone(), heard, core_run });
    }

    fn poll_arrives(&mut self, place: &Region, heard: Option<Heard>, core_run: u64) {
        let agent = self.agents.get_mut(place).unwrap();
        if !agent.up || !agent.linked {
            return;
        }
        if let Some(news) = heard
            && let Some(heard) = hear(agent.heard.as_ref(), &news)
        {
            agent.heard = Some(heard);
        }
        agent.sequence += 1;
        let (heard, sequence, run) = (agent.heard.clone(), agent.sequence, agent.run);
        let nodes = self
            .servers
            .keys()
            .filter(|id| id.region() == place)
            .map(|id| (id.clone(), NodeReport { age_ms: 0, view: self.view(id), last: None }))
            .collect();
        let report = AgentReport {
            region: place.clone(),
            run: format!("run-{run}"),
            sequence,
            heard,
            nodes,
            stamp_us: self.now,
            peers: BTreeMap::new(),
            refusing: None,
            host: Default::default(),
        };
        let mut wait = self.random.between(100, 3 * MS);
        if self.wild && self.random.once_in(20) {
            wait += self.random.between(1, 400) * MS;
        }
        let input = Input::Report(report);
        self.after(wait, Event::ToCore { core_run, input });
    }
}
