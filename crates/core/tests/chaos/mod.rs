//! A world in which everything goes wrong at any moment: commands are late, lost, doubled and
//! replayed, answers of the store get lost, the store goes back to a copy, agents and servers end or
//! freeze, links break in one direction or both, clocks drift, disks stall, regions die, the
//! orchestrator begins anew, sometimes beside its predecessor, and operators press every button. On
//! some days three orchestrators share the store (`several.rs`).
//! Time is virtual, and everything follows from one seed.
#![allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]

pub mod day;
mod faults;
mod holding;
mod network;
mod parameters;
mod report;
mod serve;
mod servers;
mod several;
mod sight;
mod store;
pub mod story;
mod view;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tier0_core::agent::Obeyed;
use tier0_core::lease::{Boot, Reliance};
use tier0_core::orchestrator::*;
use tier0_core::order::{Command, Order, Outcome};
use tier0_core::record::{Automatic, AutomaticMode, ClaimPhase, OperationKind, Record};
use tier0_core::steps::{Step, StepKey};
use tier0_core::words::*;

use holding::{Holder, LOOK, Question, Told};
pub use parameters::Parameters;
pub use report::{Batch, Counts, OF_SEVERAL};
pub use servers::{Acknowledged, Base, Server};
use several::{At, Cut, Post, SITES, Swap};

use crate::world::region;

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
    run: u64,
    operation: OperationId,
    key: StepKey,
}

#[derive(Debug, Clone)]
enum Event {
    ToCore { run: u64, input: Input },
    Poll { region: Region },
    PollArrives { region: Region, told: Told, run: u64 },
    Command { agent_run: u64, command: Command, reply: Reply },
    Replay { command: Command },
    Work { work: Work },
    Tick,
    Knock,
    Beat,
    LookAtLeases,
    Asked { question: Question },
    Confirmed { question: Question },
    LookAfter,
    CoreUp,
    CoreEnds { run: u64 },
    AgentUp { region: Region },
    LinkUp { region: Region },
    StreamUp,
    Thaw { node: NodeId },
    Load { run: u64 },
    ReadStore { run: u64 },
    StoreIsRead { run: u64, begun: Moment },
    SwapArrives { swap: Swap },
    TellOthers { run: u64 },
    SiteUp { site: usize },
    SiteWell { site: usize, what: Cut },
    CoreGoesOn { run: u64 },
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
    /// What it answers reaches nobody.
    pub mute: bool,
    /// It stays dead until everything is healed.
    pub gone: bool,
    pub heard: Option<Heard>,
    pub obeyed: BTreeMap<NodeId, Obeyed>,
    running: BTreeMap<NodeId, Stamp>,
    /// From when on the newest command of each node does something: it is kept first.
    begins: BTreeMap<NodeId, u64>,
    pub sequence: u64,
    pub holder: Holder,
    /// Since when nothing has befallen it or the way to it.
    pub well_since: u64,
}

/// A command's place among those to one node: which node, and its stamp.
type Place = (NodeId, u64, u64, u64);

#[derive(Clone)]
pub struct Chaos {
    pub parameters: Parameters,
    pub random: Random,
    /// The orchestrators that run, by run. Usually it is one.
    pub cores: BTreeMap<u64, Orchestrator>,
    core_run: u64,
    /// Where orchestrators run that share a store, in the order of [`SITES`]; in a day of one, none.
    sites: Vec<At>,
    /// What is around each run that shares a store.
    posts: BTreeMap<u64, Post>,
    seat_taken_at: u64,
    pub stored: Record,
    /// Records that were stored before, the newest last.
    copies: VecDeque<Record>,
    /// The store went back to a copy; this is what it held.
    went_back_from: Option<Record>,
    went_back_at: u64,
    pub servers: BTreeMap<NodeId, Server>,
    pub agents: BTreeMap<Region, Agent>,
    pub stream_up: bool,
    pub now: u64,
    /// From when on the orchestrator's clock has its own rate.
    clock_from: u64,
    wall_offset: i64,
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
    /// Nodes whose data nobody may touch: what was lost with consent may be there.
    may_hold_lost: BTreeSet<NodeId>,
    /// What was sent, to be replayed.
    sent: VecDeque<Command>,
    /// Every stamp that was given, and for what.
    stamps: BTreeMap<Place, Order>,
    /// Runs whose compare-and-swap is under way.
    storing: BTreeSet<u64>,
    /// When each run last had a report of each region.
    heard_at: BTreeMap<(u64, Region), u64>,
    /// The newest stamp that each run has of each agent, and of which run of that it is.
    stamps_of: BTreeMap<(u64, Region), (u64, u64)>,
    /// The newest epoch in which a server of each datastore was promoted.
    serves: BTreeMap<DatastoreName, Epoch>,
    /// When each server last answered the other region's agent.
    answered_at: BTreeMap<NodeId, u64>,
    /// Until then nothing seems to answer anybody.
    lying_until: u64,
    /// The orchestrators' processes stand still: what comes to them waits.
    still_core: bool,
}

thread_local! {
    /// What happened, for people; beside the world, so that it is still there after a panic.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static SAYS: Cell<bool> = const { Cell::new(false) };
    static TOLERATES: Cell<bool> = const { Cell::new(false) };
}

/// How much is said when a command is sent while the record changes. What stands behind that can only
/// be seen where it is let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    Wrong,
    LetPass,
}

pub fn early_commands(are: Early) {
    TOLERATES.set(are == Early::LetPass);
}

/// What happened since [`listen`].
pub fn said() -> String {
    SAID.with_borrow(|said| said.join("\n"))
}

/// A new day begins; whether it is to be told of.
pub fn listen(says: bool) {
    SAID.with_borrow_mut(Vec::clear);
    SAYS.set(says);
}

impl Chaos {
    pub fn new(parameters: Parameters) -> Chaos {
        let settings = parameters.settings();
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
            mute: false,
            gone: false,
            heard: None,
            obeyed: BTreeMap::new(),
            running: BTreeMap::new(),
            begins: BTreeMap::new(),
            sequence: 0,
            well_since: 0,
            holder: Holder::new(SECOND, Boot::from_stamp(SECOND), Reliance::default()),
        };
        assert_eq!(settings.limits.lease, Chaos::LEASE);
        let regions = settings.shape.regions.clone();
        let mut chaos = Chaos {
            parameters,
            random: Random::new(1),
            cores: [(0, Orchestrator::new(settings, "run-0".to_owned()))].into(),
            core_run: 0,
            sites: Vec::new(),
            posts: BTreeMap::new(),
            seat_taken_at: 0,
            stored,
            copies: VecDeque::new(),
            went_back_from: None,
            went_back_at: 0,
            servers,
            agents: regions.iter().map(|place| (place.clone(), agent.clone())).collect(),
            stream_up: true,
            now: SECOND,
            clock_from: 0,
            wall_offset: 0,
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
            may_hold_lost: BTreeSet::new(),
            sent: VecDeque::new(),
            stamps: BTreeMap::new(),
            storing: BTreeSet::new(),
            heard_at: BTreeMap::new(),
            stamps_of: BTreeMap::new(),
            serves: BTreeMap::new(),
            answered_at: BTreeMap::new(),
            lying_until: 0,
            still_core: false,
        };
        if chaos.is_shared() {
            chaos.cores.clear();
            for site in 0..SITES.len() {
                chaos.sites.push(At { run: u64::MAX, ..At::default() });
                chaos.site_up(site);
            }
        } else {
            chaos.load(0);
        }
        for place in regions {
            chaos.after(0, Event::Poll { region: place });
        }
        chaos.after(0, Event::Tick);
        chaos.after(0, Event::Beat);
        chaos.after(0, Event::Knock);
        chaos.after(0, Event::LookAtLeases);
        chaos.after(0, Event::LookAfter);
        chaos
    }

    /// A day begins as its parameters say.
    pub fn begin(&mut self, parameters: Parameters, random: Random) {
        let rate = std::mem::replace(&mut self.parameters, parameters).clock_rate;
        self.random = random;
        self.set_clocks(rate);
        self.clock_from = self.now;
        self.wild = true;
        self.ask(Asked::Arm { mode: self.parameters.mode, lasting: None });
    }

    /// The run that acts, while it runs.
    pub fn core(&self) -> Option<&Orchestrator> {
        self.cores.get(&self.acting_run())
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), event);
    }

    fn say(&self, line: impl FnOnce() -> String) {
        if SAYS.get() {
            let at = self.now / MS;
            SAID.with_borrow_mut(|said| said.push(format!("{at:>9} {}", line())));
        }
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

    /// Whatever is not as it should be has not been well.
    fn note_well(&mut self) {
        for place in self.agents.keys().cloned().collect::<Vec<_>>() {
            let ill = self.is_ill_with(&place);
            let agent = self.agents.get_mut(&place).unwrap();
            if ill || !agent.up || !agent.linked || agent.mute {
                agent.well_since = self.now;
            }
        }
        for server in self.servers.values_mut() {
            if !server.runs() {
                server.well_since = self.now;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToCore { run, input } if self.is_still(run) => {
                self.after(20 * MS, Event::ToCore { run, input });
            }
            Event::Tick if self.still_core => self.after(40 * MS, Event::Tick),
            Event::Poll { region } if self.still_core => {
                self.after(150 * MS, Event::Poll { region });
            }
            Event::ToCore { run, input } => self.step(run, input),
            Event::Tick => {
                self.after(40 * MS, Event::Tick);
                for run in self.cores.keys().copied().collect::<Vec<_>>() {
                    if !self.is_still(run) {
                        self.step(run, Input::Tick);
                    }
                }
            }
            Event::Knock => {
                self.after(200 * MS, Event::Knock);
                if self.still_core {
                    return;
                }
                self.knock();
            }
            Event::Beat => {
                self.after(5 * MS, Event::Beat);
                self.note_well();
                self.beat();
            }
            Event::LookAtLeases => {
                self.after(LOOK, Event::LookAtLeases);
                self.look_at_leases();
            }
            Event::Asked { question } => self.asked(question),
            Event::Confirmed { question } => self.confirmed(question),
            Event::LookAfter => {
                self.after(250 * MS, Event::LookAfter);
                self.count_rows();
                self.look_after();
            }
            Event::Poll { region } => {
                self.after(150 * MS, Event::Poll { region: region.clone() });
                self.poll(&region);
            }
            Event::PollArrives { region, told, run } => self.poll_arrives(&region, told, run),
            Event::Command { agent_run, command, reply } => {
                self.command_arrives(agent_run, command, reply);
            }
            Event::Replay { command } => self.replay_arrives(command),
            Event::Work { work } => self.work(work),
            Event::CoreUp => self.core_up(),
            Event::CoreEnds { run } => {
                if self.is_shared() {
                    self.ends(run);
                } else if run != self.core_run {
                    self.cores.remove(&run);
                }
            }
            Event::Load { run } => self.load(run),
            Event::ReadStore { run } => self.read_store(run),
            Event::StoreIsRead { run, begun } => self.store_is_read(run, begun),
            Event::SwapArrives { swap } => self.swap_arrives(swap),
            Event::TellOthers { run } => self.tell_others(run),
            Event::SiteUp { site } => self.site_up(site),
            Event::SiteWell { site, what } => self.site_well(site, &what),
            Event::CoreGoesOn { run } => self.core_goes_on(run),
            Event::AgentUp { region } => self.agent_up(&region),
            Event::LinkUp { region } => {
                let agent = self.agents.get_mut(&region).unwrap();
                agent.linked = true;
                agent.mute = false;
            }
            Event::StreamUp => self.stream_up = true,
            Event::Thaw { node } => self.servers.get_mut(&node).unwrap().thaw(),
        }
    }

    /// An orchestrator's clocks: one runs at its own rate, the other jumps.
    fn clocks(&mut self, run: u64) -> Now {
        let fresh = format!("bbbbbbbb-{:08}", self.fresh).parse().unwrap();
        self.fresh += 1;
        let of_all =
            self.clock_from + (self.now - self.clock_from) * self.parameters.clock_rate / 1_000;
        Now {
            moment: Moment::from_micros(self.moment_of(run).unwrap_or(of_all)),
            wall: WallMillis(self.now as i64 / 1000 + self.wall_offset),
            fresh,
        }
    }

    fn step(&mut self, run: u64, input: Input) {
        let Some(mut core) = self.cores.remove(&run) else { return };
        match &input {
            Input::Report(report) => {
                let from = (run, report.region.clone());
                let of_run = report.run.trim_start_matches("run-").parse().unwrap();
                self.stamps_of.insert(from.clone(), (of_run, report.stamp_us));
                self.heard_at.insert(from, self.now);
            }
            Input::Loaded(_) | Input::Stored(StoreAnswer::Stored | StoreAnswer::Lost { .. }) => {
                self.has_loaded(run);
                self.storing.remove(&run);
            }
            Input::Stored(StoreAnswer::Unknown { .. })
            | Input::Missed { .. }
            | Input::Outcome { .. }
            | Input::Asked(_)
            | Input::Knocked { .. }
            | Input::RoundTrip { .. }
            | Input::Read { .. }
            | Input::Peer(_)
            | Input::Tick => {}
        }
        let now = self.clocks(run);
        if let Some(post) = self.posts.get_mut(&run) {
            post.takes(&core, now.moment, &input);
        }
        let before = core.record().map(Record::heard);
        let drove = core.is_driving();
        let effects = core.step(&now, input);
        let changed = core.record().map(Record::heard) != before;
        let deposed = self.is_shared() && drove && !core.is_driving();
        self.counts.deposed += u64::from(deposed);
        self.cores.insert(run, core);
        for effect in effects {
            self.perform(run, effect);
        }
        if changed {
            for place in self.agents.keys().cloned().collect::<Vec<_>>() {
                if self.is_shared() {
                    self.poll_by(run, &place);
                } else {
                    self.poll(&place);
                }
            }
        }
    }

    fn perform(&mut self, run: u64, effect: Effect) {
        match effect {
            Effect::Store { expected, next } => {
                assert!(self.storing.insert(run), "two changes of the record at once");
                self.store(run, &expected, *next);
            }
            Effect::Load => self.load(run),
            Effect::Send { operation, key, command } => {
                let command = *command;
                assert!(
                    !self.storing.contains(&run) || TOLERATES.get(),
                    "{key} is sent while a change of the record is under way"
                );
                self.check_sent(run, &operation, &key, &command);
                *self.counts.steps.entry(key.step).or_default() += 1;
                self.send(run, operation, key, command);
            }
            Effect::Began(activity) => self.began(run, &activity),
            Effect::Ended { activity, ended } => self.ended(&activity, &ended),
            Effect::HeldBack(near_miss) => {
                self.counts.held_back += 1;
                self.say(|| near_miss.sentence);
            }
            Effect::Refused { refusal, .. } => {
                self.say(|| format!("refused {}", refusal.code));
                self.counts.moves_refused += 1;
                *self.counts.refusals.entry(refusal.code).or_default() += 1;
            }
            Effect::Explain { row, subject, .. } => {
                if row.starts_with('A') {
                    *self.counts.rows.entry(row).or_default() += 1;
                }
                self.say(|| format!("run {run} row {row} {subject}"));
            }
            Effect::Note(note) => {
                if let (Some(key), Noted::Ends { sentence }) = (&note.key, &note.what)
                    && sentence.starts_with("done")
                    && matches!(row_of(key), Side::Here | Side::Record)
                {
                    *self.counts.steps.entry(key.step).or_default() += 1;
                }
            }
        }
    }

    /// What must be so of the record that its sender knows when a command is sent.
    fn check_sent(&self, run: u64, operation: &OperationId, key: &StepKey, command: &Command) {
        let record = self.cores[&run].record().unwrap();
        let claim = record.claim.as_ref();
        if matches!(command.order, Order::PostgresLeave) {
            // Record first: nobody is a member any more when commits stop waiting (P1).
            let takeover = &record.datastores[command.node.datastore()].takeover;
            assert!(takeover.is_empty(), "{key} is sent and the record has a member");
        }
        if matches!(command.order, Order::RedisUnfence { .. }) {
            let aborting = claim.is_some_and(|claim| claim.phase == ClaimPhase::Aborting);
            assert!(aborting, "{key} is sent and no abort is stored");
        }
        if let Some(mover) = claim.filter(|claim| claim.kind.moves_writer()) {
            // One that has said what stays closed leaves alone what it has opened.
            let open = self.cores[&run].activities().any(|activity| {
                activity.id == mover.operation
                    && activity.is_retrying()
                    && !activity.works_on(command.node.datastore())
            });
            if open {
                return;
            }
            assert_eq!(mover.operation, *operation, "{key} is sent while the writer is moved");
        }
    }

    /// A copy is given up only on a fresh word of the writer's own agent, and while the writer's
    /// own server is known to run (P9).
    fn began(&mut self, run: u64, activity: &Activity) {
        self.say(|| format!("run {run} begins {} {} {}", activity.kind, activity.id, activity.by));
        self.check_automatic(run, activity);
        let gives_up = matches!(
            activity.kind,
            OperationKind::Leave | OperationKind::Expose | OperationKind::Rebuild
        );
        let Some(node) = activity.node.as_ref().filter(|_| gives_up) else { return };
        if activity.kind == OperationKind::Rebuild {
            // Whoever asks for it releases what is there.
            self.may_hold_lost.remove(node);
        }
        let writer = NodeId::new(node.datastore().clone(), activity.target.clone());
        let heard_at = self.heard_at.get(&(run, activity.target.clone())).copied().unwrap_or(0);
        assert!(
            self.now - heard_at <= SECOND * 5 / 4,
            "{} of {node}, and {} was last heard {} ms ago",
            activity.kind,
            activity.target,
            (self.now - heard_at) / MS
        );
        let runs = self.cores[&run].seen().view(&writer).is_some_and(view::is_running);
        assert!(runs, "{} of {node}, and {writer} does not run", activity.kind);
    }

    fn ended(&mut self, activity: &Activity, ended: &Ended) {
        self.say(|| format!("ended {} {} {ended:?}", activity.kind, activity.id));
        if let Ended::Refused { refusal } | Ended::Aborted { refusal } = ended {
            *self.counts.refusals.entry(refusal.code.clone()).or_default() += 1;
        }
        if !activity.kind.moves_writer() {
            return;
        }
        match ended {
            Ended::Succeeded => {
                self.counts.moves_succeeded += 1;
                self.counts.automatic += u64::from(activity.cause.is_some());
            }
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

    /// Which row explains each datastore now: what `tier0 status` shows.
    fn count_rows(&mut self) {
        let run = self.acting_run();
        let now = self.clocks(run);
        let Some(core) = self.cores.get(&run) else { return };
        let Some(record) = core.record() else { return };
        let Some(other) = core.settings().shape.other(&record.writer) else { return };
        for name in core.settings().shape.datastores.keys() {
            if let Some(row) = core.matching_row(&now, record, name, other) {
                *self.counts.rows.entry(row.id).or_default() += 1;
            }
        }
    }
}

use tier0_core::steps::Side;

fn row_of(key: &StepKey) -> Side {
    tier0_core::steps::row(key.step).side
}
