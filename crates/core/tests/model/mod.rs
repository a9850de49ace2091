//! Everything that can happen to one PostgreSQL datastore in two regions, within bounds: commands are
//! late, lost and doubled, an agent ends between any two of its writes, the orchestrator ends at any
//! moment, a compare-and-swap's answer is lost, a move is asked for at any time, servers end, the
//! stream breaks. What is decided, the real core decides; what is obeyed, the real judgement says.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod beyond;
mod decisions;
mod known;
mod servers;
mod walk;

use std::hash::Hash;

use stateright::{Model, Property};
use tier0_core::agent::{Judgement, Obeyed, hear, heard_in, judge};
use tier0_core::observe::{AgentReport, NodeReport};
use tier0_core::orchestrator::*;
use tier0_core::order::{Command, Outcome};
use tier0_core::record::{
    Automatic, AutomaticMode, ClaimPhase, DatastoreKind, End, Finished, Member, Record,
};
use tier0_core::steps::StepKey;
use tier0_core::words::*;

use crate::world::kinds::has_row;
use crate::world::{region, settings};
pub use decisions::Reached;
use decisions::{Core, Decisions};
use known::{Known, Marks};
use servers::{Server, node};
pub use walk::walk;

const PLACES: [&str; 2] = ["region1", "region2"];

/// How often each thing may happen in one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    pub moves: u8,
    pub moves_with_loss: u8,
    pub writes: u8,
    pub core_ends: u8,
    pub agent_ends: u8,
    pub server_ends: u8,
    pub cuts: u8,
    pub lost: u8,
    pub doubled: u8,
    pub store_lost: u8,
    pub misses: u8,
    pub waits: u8,
}

impl Budget {
    pub const NONE: Budget = Budget {
        moves: 0,
        moves_with_loss: 0,
        writes: 0,
        core_ends: 0,
        agent_ends: 0,
        server_ends: 0,
        cuts: 0,
        lost: 0,
        doubled: 0,
        store_lost: 0,
        misses: 0,
        waits: 0,
    };
}

#[derive(Debug, Clone, PartialEq)]
struct Reply {
    run: u8,
    operation: OperationId,
    key: StepKey,
}

type Flight = (Command, Reply);
type Back = (Reply, Stamp, Outcome);
type Swap = (u8, Heard, Record);

#[derive(Debug, Clone, PartialEq, Hash)]
struct Agent {
    heard: Known<Option<Heard>>,
    obeyed: Known<Option<Obeyed>>,
    running: Option<Known<Flight>>,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct World {
    core: Core,
    run: u8,
    begun: u8,
    time: u8,
    stored: Known<Record>,
    swaps: Vec<Known<Swap>>,
    answer: Option<Known<StoreAnswer>>,
    load: bool,
    commands: Vec<Known<Flight>>,
    outcomes: Vec<Known<Back>>,
    agents: [Agent; 2],
    servers: [Server; 2],
    link: bool,
    written: u8,
    acknowledged: u8,
    acknowledged_on: u32,
    member_at_swap: bool,
    loss_accepted: bool,
    left: Budget,
    moved: u8,
    joined: bool,
    wrong: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Move,
    MoveWithLoss,
    Tick,
    Wait,
    Poll(usize),
    Miss(usize),
    Swap(usize),
    SwapUnheard(usize),
    SwapLost(usize),
    Answer,
    Load,
    Deliver(usize),
    DeliverTwice(usize),
    Lose(usize),
    Work(usize),
    WorkAndEnd(usize),
    Outcome(usize),
    LoseOutcome(usize),
    CoreEnds,
    AgentEnds(usize),
    ServerEnds(usize),
    Cut,
    Mend,
    Write(usize),
    Ship,
    UndoJoin(usize),
}

pub struct Stack {
    pub budget: Budget,
    decisions: Decisions,
}

impl World {
    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn now(&self) -> Now {
        Now {
            moment: Moment::from_micros(1_000_000 + u64::from(self.time) * 30_000_000),
            wall: WallMillis(0),
            fresh: format!("bbbbbbbb-{:04}", self.begun).parse().unwrap(),
        }
    }

    /// An input that is told from others by what it is and by a digest.
    fn step(
        &mut self,
        decisions: &Decisions,
        what: (u8, u128),
        input: impl FnOnce(&World) -> Input,
    ) {
        let mut marks = Marks::new();
        (what, self.time, self.begun).hash(&mut marks);
        let found = decisions.step(&self.core, marks.mark(), || self.now(), || input(self));
        self.core = found.core.clone();
        self.begun += found.began;
        for effect in &found.effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Store { expected, next } => {
                let swap = (self.run, expected.clone(), (**next).clone());
                self.swaps.push(Known::new(swap));
            }
            Effect::Load => self.load = true,
            Effect::Send { operation, key, command } => {
                if !has_row(DatastoreKind::Postgres, &command.order) {
                    self.wrong(format!("no server has a row for {:?}", command.order));
                }
                let reply = Reply { run: self.run, operation: operation.clone(), key: key.clone() };
                self.commands.push(Known::new(((**command).clone(), reply)));
                self.commands.sort_by_key(|flight| flight.digest);
            }
            Effect::Began(_)
            | Effect::Ended { .. }
            | Effect::Note(_)
            | Effect::HeldBack(_)
            | Effect::Refused { .. }
            | Effect::Explain { .. } => {}
        }
    }

    /// Only after the swap, only in the writer's region, only with every write.
    fn check_promotion(&mut self, place: usize, epoch: Epoch) {
        let record = self.stored.is.clone();
        if record.epoch != epoch || record.writer.as_str() != PLACES[place] {
            self.wrong(format!("{} is promoted and is not the writer", PLACES[place]));
        }
        let missing = self.acknowledged & !self.servers[place].log;
        if self.loss_accepted {
            self.acknowledged &= !missing;
        } else if !self.member_at_swap {
            self.wrong(format!("{} is promoted and was no member", PLACES[place]));
        } else if missing != 0 {
            self.wrong(format!("{} is promoted and lacks an acknowledged write", PLACES[place]));
        }
    }

    /// The record goes on as it may (R4, P3).
    fn check_record(&mut self, next: &Record) {
        let before = self.stored.is.clone();
        let name: DatastoreName = "pg1".parse().unwrap();
        let (was, is) = (&before.datastores[&name].takeover, &next.datastores[&name].takeover);
        self.joined |= was.is_empty() && !is.is_empty() && next.epoch > Epoch::FIRST;
        let phases = (
            before.claim.as_ref().map(|claim| claim.phase),
            next.claim.as_ref().map(|claim| claim.phase),
        );
        let exclusive = match phases {
            (None | Some(ClaimPhase::Before), _) | (Some(_), None) => true,
            (Some(was), Some(is)) => was == is,
        };
        if !exclusive {
            self.wrong(format!("abort and swap are not exclusive: {phases:?}"));
        }
        if next.epoch != before.epoch {
            let target = NodeId::new(name.clone(), next.writer.clone());
            self.member_at_swap = was.contains_key(&target);
            self.loss_accepted = next.claim.as_ref().is_some_and(|claim| claim.accept_loss);
            self.moved += 1;
            if !self.member_at_swap && !self.loss_accepted {
                self.wrong("the writer moves to where no member is".to_owned());
            }
            if phases.0 != Some(ClaimPhase::Before) {
                self.wrong(format!("a swap in phase {:?}", phases.0));
            }
            if !is.is_empty() {
                self.wrong("the old side may take over at once".to_owned());
            }
        }
    }

    fn reach(&mut self, swap: &Swap) -> StoreAnswer {
        let (_, expected, next) = swap;
        if self.stored.is.heard() != *expected {
            return StoreAnswer::Lost { current: Box::new((*self.stored.is).clone()) };
        }
        self.check_record(next);
        self.stored = Known::new(next.clone());
        StoreAnswer::Stored
    }

    /// An agent is polled: it hears, and reports.
    fn polled(&mut self, decisions: &Decisions, place: usize) {
        if let Some(record) = self.core.orchestrator.record() {
            self.agents[place].hears(&record.heard());
        }
        // What a report is made of.
        let mut marks = Marks::new();
        (place, &self.servers, self.agents[place].heard.digest, self.link).hash(&mut marks);
        self.step(decisions, (0, marks.mark()), |world| world.report(place));
    }

    fn report(&self, place: usize) -> Input {
        let report = NodeReport { age_ms: 0, view: self.view(place), last: None };
        Input::Report(AgentReport {
            region: region(PLACES[place]),
            run: "agent".to_owned(),
            sequence: 0,
            heard: (*self.agents[place].heard.is).clone(),
            nodes: [(node(place), report)].into(),
            stamp_us: 0,
            peers: Default::default(),
            refusing: None,
            host: Default::default(),
        })
    }

    fn answer(&mut self, reply: &Reply, stamp: &Stamp, outcome: Outcome) {
        if reply.run == self.run {
            self.outcomes.push(Known::new((reply.clone(), stamp.clone(), outcome)));
            self.outcomes.sort_by_key(|back| back.digest);
        }
    }

    fn deliver(&mut self, flight: &Known<Flight>) {
        let (command, reply) = &*flight.is;
        let place = usize::from(command.node.region().as_str() == PLACES[1]);
        let agent = &mut self.agents[place];
        let judged =
            judge(agent.heard.is.as_ref().as_ref(), agent.obeyed.is.as_ref().as_ref(), command);
        match judged {
            Judgement::Answer(outcome) => return self.answer(reply, &command.stamp, outcome),
            Judgement::Refuse(refusal) => {
                return self.answer(reply, &command.stamp, Outcome::Refused { refusal });
            }
            Judgement::Again
                if agent.running.as_ref().is_some_and(|it| it.is.0.stamp == command.stamp) =>
            {
                return;
            }
            Judgement::Again | Judgement::Obey => {}
        }
        if !command.order.only_looks() {
            agent.hears(&heard_in(&command.stamp));
            agent.obeyed = Known::new(Some(Obeyed { command: command.clone(), outcome: None }));
        }
        // A newer command ends the one that runs.
        if let Some(ended) = agent.running.replace(flight.clone()) {
            let (command, reply) = &*ended.is;
            let why = "a newer command ended it".to_owned();
            self.answer(reply, &command.stamp, Outcome::Unknown { why });
        }
    }

    /// The effect of the command that runs, and whether the agent lives to keep the outcome.
    fn work(&mut self, place: usize, lives: bool) -> bool {
        let Some(flight) = self.agents[place].running.clone() else { return false };
        let (command, reply) = &*flight.is;
        let Some(outcome) = self.serve(place, &command.order, command.stamp.epoch) else {
            return false;
        };
        let agent = &mut self.agents[place];
        agent.running = None;
        if !lives {
            let why = "the connection broke".to_owned();
            self.answer(reply, &command.stamp, Outcome::Unknown { why });
            return true;
        }
        if !command.order.only_looks() {
            let obeyed = Obeyed { command: command.clone(), outcome: Some(outcome.clone()) };
            agent.obeyed = Known::new(Some(obeyed));
        }
        self.answer(reply, &command.stamp, outcome);
        true
    }
}

impl Agent {
    fn hears(&mut self, news: &Heard) {
        if let Some(heard) = hear((*self.heard.is).as_ref(), news)
            && (*self.heard.is).as_ref() != Some(&heard)
        {
            self.heard = Known::new(Some(heard));
        }
    }
}

impl Stack {
    pub fn new(budget: Budget) -> Stack {
        Stack { budget, decisions: Decisions::new() }
    }

    /// How many different decisions the core was asked for.
    pub fn decided(&self) -> usize {
        self.decisions.made()
    }

    /// A stack that is protected, with an orchestrator that has just begun to act.
    fn protected(&self) -> World {
        let settings = settings(1, 0);
        let wall = WallMillis(0);
        let lineage: Lineage = "11111111-0000".parse().unwrap();
        let off = Automatic { mode: AutomaticMode::Off, ..Automatic::default() };
        let driver = "run-0".to_owned();
        let first =
            first_record(settings.stack.clone(), &settings.shape, lineage, driver, off, wall);
        let name: DatastoreName = "pg1".parse().unwrap();
        let numbered = apply(&first, &Change::Number { datastore: name }, wall).unwrap();
        let member = Member {
            name: SyncName::new(node(1), 1),
            system: SystemId("7".to_owned()),
            timeline: Timeline(1),
            floor: Lsn::from_bytes(1_001),
        };
        let record = apply(&numbered, &Change::Join { member }, wall).unwrap();
        let server = Server {
            runs: true,
            primary: true,
            admitted: true,
            names: Some(1),
            joining: false,
            timeline: 1,
            log: 1,
            pending: 0,
            name: 0,
            marker: None,
            streaming: false,
        };
        let standby = Server {
            primary: false,
            admitted: false,
            names: None,
            name: 1,
            marker: Some(1),
            streaming: true,
            ..server.clone()
        };
        let agent = Agent {
            heard: Known::new(Some(record.heard())),
            obeyed: Known::new(None),
            running: None,
        };
        let mut world = World {
            core: Core::new(Orchestrator::new(settings, "run-0".to_owned())),
            run: 0,
            begun: 0,
            time: 0,
            stored: Known::new(record.clone()),
            swaps: Vec::new(),
            answer: None,
            load: false,
            commands: Vec::new(),
            outcomes: Vec::new(),
            agents: [agent.clone(), agent],
            servers: [server, standby],
            link: true,
            written: 1,
            acknowledged: 1,
            acknowledged_on: 1,
            member_at_swap: false,
            loss_accepted: false,
            left: self.budget,
            moved: 0,
            joined: false,
            wrong: None,
        };
        world.step(&self.decisions, (1, world.stored.digest), |_| Input::Loaded(record));
        for place in 0..2 {
            world.polled(&self.decisions, place);
        }
        world
    }

    fn act(&self, world: &mut World, action: Action) -> bool {
        let decisions = &self.decisions;
        match action {
            Action::Move | Action::MoveWithLoss => {
                let loss = action == Action::MoveWithLoss;
                let left =
                    if loss { &mut world.left.moves_with_loss } else { &mut world.left.moves };
                *left -= 1;
                let here = world.stored.is.writer.as_str() == PLACES[0];
                let target = region(PLACES[usize::from(here)]);
                let consent = if loss { Consent::AcceptLoss } else { Consent::None };
                let number = world.left.moves + 10 * world.left.moves_with_loss;
                let request = Request {
                    id: format!("aaaaaaaa-{number:04}").parse().unwrap(),
                    what: Asked::Move { target, consent },
                    by: "test".to_owned(),
                    reason: "test".to_owned(),
                };
                let mark = u128::from(number) << 8 | u128::from(here);
                world.step(decisions, (2, mark << 1 | u128::from(loss)), |_| Input::Asked(request));
            }
            Action::Tick => world.step(decisions, (3, 0), |_| Input::Tick),
            Action::Wait => {
                world.left.waits -= 1;
                world.time += 1;
                world.step(decisions, (3, 0), |_| Input::Tick);
            }
            Action::Poll(place) => world.polled(decisions, place),
            Action::Miss(place) => {
                world.left.misses -= 1;
                let missed = Input::Missed {
                    region: region(PLACES[place]),
                    why: "no connection".to_owned(),
                };
                // One that breaks says little: two in a row count.
                for _ in 0..2 {
                    world.step(decisions, (4, place as u128), |_| missed.clone());
                }
            }
            Action::Swap(which) | Action::SwapUnheard(which) | Action::SwapLost(which) => {
                let swap = world.swaps.remove(which);
                let reached = !matches!(action, Action::SwapLost(_));
                let mut answer = StoreAnswer::Unknown { why: "no answer".to_owned() };
                if reached {
                    let real = world.reach(&swap.is);
                    if matches!(action, Action::Swap(_)) {
                        answer = real;
                    }
                }
                if !matches!(action, Action::Swap(_)) {
                    world.left.store_lost -= 1;
                }
                if swap.is.0 == world.run {
                    world.answer = Some(Known::new(answer));
                }
            }
            Action::Answer => {
                let Some(answer) = world.answer.take() else { return false };
                world.step(decisions, (5, answer.digest), |_| Input::Stored((*answer.is).clone()));
            }
            Action::Load => {
                world.load = false;
                let record = Known::clone(&world.stored);
                world.step(decisions, (1, record.digest), |_| Input::Loaded((*record.is).clone()));
            }
            Action::Deliver(which) => {
                let flight = world.commands.remove(which);
                world.deliver(&flight);
            }
            Action::DeliverTwice(which) => {
                world.left.doubled -= 1;
                let flight = world.commands[which].clone();
                world.deliver(&flight);
            }
            Action::Lose(which) => {
                world.left.lost -= 1;
                let flight = world.commands.remove(which);
                let (command, reply) = &*flight.is;
                let why = "no outcome in time".to_owned();
                world.answer(reply, &command.stamp, Outcome::Unknown { why });
            }
            Action::Work(place) => return world.work(place, true),
            Action::WorkAndEnd(place) => {
                world.left.agent_ends -= 1;
                return world.work(place, false);
            }
            Action::Outcome(which) | Action::LoseOutcome(which) => {
                let back = world.outcomes.remove(which);
                let (reply, stamp, outcome) = (*back.is).clone();
                let outcome = if matches!(action, Action::LoseOutcome(_)) {
                    world.left.lost -= 1;
                    Outcome::Unknown { why: "no outcome in time".to_owned() }
                } else {
                    outcome
                };
                let (operation, key) = (reply.operation, reply.key);
                let lost = u8::from(matches!(action, Action::LoseOutcome(_)));
                let input = Input::Outcome { operation, key, stamp, outcome };
                world.step(decisions, (6 + lost, back.digest), |_| input);
            }
            Action::CoreEnds => {
                world.left.core_ends -= 1;
                world.run += 1;
                world.outcomes.clear();
                world.answer = None;
                let run = format!("run-{}", world.run);
                world.core = Core::new(Orchestrator::new(settings(1, 0), run));
                world.load = true;
            }
            Action::AgentEnds(place) => {
                world.left.agent_ends -= 1;
                let Some(flight) = world.agents[place].running.take() else { return false };
                let (command, reply) = &*flight.is;
                let why = "the connection broke".to_owned();
                world.answer(reply, &command.stamp, Outcome::Unknown { why });
            }
            Action::ServerEnds(place) => {
                world.left.server_ends -= 1;
                world.servers[place].end();
            }
            Action::Cut => {
                world.left.cuts -= 1;
                world.link = false;
                world.servers.iter_mut().for_each(|server| server.streaming = false);
            }
            Action::Mend => world.link = true,
            Action::Write(place) => {
                world.left.writes -= 1;
                return world.write(place);
            }
            Action::Ship => return world.ship(),
            Action::UndoJoin(place) => return world.undo_join(place),
        }
        true
    }
}

impl Model for Stack {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.protected()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.wrong.is_some() {
            return;
        }
        let left = &world.left;
        let mut may = |budget: u8, action: Action| {
            if budget > 0 {
                actions.push(action);
            }
        };
        if world.core.orchestrator.record().is_some() {
            may(left.moves, Action::Move);
            may(left.moves_with_loss, Action::MoveWithLoss);
            may(1, Action::Tick);
            may(left.waits, Action::Wait);
        }
        may(left.core_ends, Action::CoreEnds);
        may(u8::from(world.load), Action::Load);
        may(u8::from(world.answer.is_some()), Action::Answer);
        for which in 0..world.swaps.len() {
            may(1, Action::Swap(which));
            may(left.store_lost, Action::SwapUnheard(which));
            may(left.store_lost, Action::SwapLost(which));
        }
        for which in 0..world.commands.len() {
            may(1, Action::Deliver(which));
            may(left.doubled, Action::DeliverTwice(which));
            may(left.lost, Action::Lose(which));
        }
        for which in 0..world.outcomes.len() {
            may(1, Action::Outcome(which));
            may(left.lost, Action::LoseOutcome(which));
        }
        for place in 0..2 {
            may(1, Action::Poll(place));
            may(left.misses, Action::Miss(place));
            if world.agents[place].running.is_some() {
                may(1, Action::Work(place));
                may(left.agent_ends, Action::WorkAndEnd(place));
                may(left.agent_ends, Action::AgentEnds(place));
            }
            if world.servers[place].runs {
                may(left.server_ends, Action::ServerEnds(place));
                may(left.writes, Action::Write(place));
            }
            may(u8::from(world.servers[place].joining), Action::UndoJoin(place));
        }
        may(if world.link { left.cuts } else { 0 }, Action::Cut);
        may(u8::from(!world.link), Action::Mend);
        may(1, Action::Ship);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.act(&mut next, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_, world: &World| world.wrong.is_none()),
            Property::sometimes("a move succeeds", |_, world: &World| {
                world.moved > 0 && world.servers[1].primary && world.stored.is.claim.is_none()
            }),
            Property::sometimes("a move is undone", |_, world: &World| {
                let undone = |finished: &Finished| matches!(finished.end, End::Undone { .. });
                world.stored.is.finished.as_ref().is_some_and(undone)
            }),
            Property::sometimes("the old side joins", |_, world: &World| world.joined),
            Property::sometimes("a copy joins again", |_, world: &World| {
                let takeover =
                    world.stored.is.datastores.values().flat_map(|it| it.takeover.values());
                let newest = takeover.map(|member| member.name.membership()).max();
                world.moved == 0 && newest.is_some_and(|number| number > 1)
            }),
        ]
    }
}
