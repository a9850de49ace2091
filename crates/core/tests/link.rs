//! Hours over a bad link: every packet takes 60 to 100 ms each way, and one in fifty is lost. Armed,
//! nothing may be moved; and when the writer's region really dies, it must be, every time.
//!
//! Time is virtual: an hour takes a second or so. Messages are as TCP makes them: what is lost comes
//! later, sent again after a while that doubles; only a connection that is opened waits no longer
//! than its limit. Left out: the stream between the databases, and what a move then does
//! (`random.rs`).
//!
//! `TIER0_LONG` asks for a thousand hours.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    non_snake_case
)]

mod world;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tier0_core::observe::{AgentReport, Knock, NodeReport, NodeView, ProcessState, Reach};
use tier0_core::orchestrator::{Effect, Input, Now, Orchestrator};
use tier0_core::record::AutomaticMode;
use tier0_core::words::*;
use world::{World, node, region};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// One packet of so many is lost.
const LOSES_ONE_IN: u64 = 50;

/// How long TCP waits at first before it sends again: the round trip and 200 ms.
const AGAIN_AFTER: u64 = 360 * MS;

/// `poll_interval_ms`.
const INTERVAL: u64 = 200 * MS;

/// How long an answer is waited for: `silence_ms`.
const PATIENCE: u64 = 1_000 * MS;

/// How long the orchestrator's HTTP client waits for a connection.
const CONNECT: u64 = 500 * MS;

/// How long a knock waits. It is made every 100 ms; half as often is harder to bear.
const KNOCK_MOST: u64 = 500 * MS;
const KNOCK_EVERY: u64 = 200 * MS;

const PLACES: [&str; 2] = ["region1", "region2"];

/// How a writer's region dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Nothing comes out of it any more.
    Silence,
    /// Its database server ends; its agent says so.
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    Poll { place: usize, connection: usize },
    Report { place: usize, connection: usize, made: u64, newest: Sight, unanswered: u64 },
    Missed { place: usize, connection: usize },
    Knock { from: Eyes, place: usize },
    Knocked { from: Eyes, place: usize, came_to: Sight },
}

/// Who knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Eyes {
    Orchestrator,
    OtherRegion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sight {
    Answered,
    Refused,
    Silent,
}

impl Sight {
    fn knock(self) -> Knock {
        match self {
            Sight::Answered => Knock::Answered,
            Sight::Refused => Knock::Refused,
            Sight::Silent => Knock::Silent,
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// How long one packet takes; `None` if it is lost.
    fn packet(&mut self) -> Option<u64> {
        let takes = (60 + self.below(41)) * MS;
        (self.below(LOSES_ONE_IN) != 0).then_some(takes)
    }

    /// How long a message takes on a connection that is open.
    fn message(&mut self) -> u64 {
        let (mut waited, mut again) = (0, AGAIN_AFTER);
        loop {
            match self.packet() {
                Some(takes) => return waited + takes,
                None => {
                    waited += again;
                    again *= 2;
                }
            }
        }
    }

    /// How long so many packets take one after the other, if none is lost.
    fn packets(&mut self, count: usize) -> Option<u64> {
        (0..count).map(|_| self.packet()).sum()
    }
}

/// A stack that is well and armed, to begin with.
struct Well {
    core: Orchestrator,
    now: u64,
    reports: [AgentReport; 2],
}

impl Well {
    fn new() -> Well {
        let mut world = World::protected(1, 0);
        world.arm(AutomaticMode::Armed);
        let heard = world.core.record().map(Record::heard);
        let report = |place: &str| {
            let id = node(&format!("pg1.{place}"));
            let view = NodeReport { age_ms: 0, view: world.view(&id), last: None };
            AgentReport {
                region: region(place),
                run: "agent".to_owned(),
                sequence: 0,
                stamp_us: 0,
                heard: heard.clone(),
                nodes: [(id, view)].into(),
                peers: BTreeMap::new(),
                refusing: None,
                host: Default::default(),
            }
        };
        let reports = PLACES.map(report);
        Well { now: world.now, core: world.core, reports }
    }
}

use tier0_core::record::Record;

/// What came of a while.
#[derive(Debug, Default)]
struct Came {
    /// When the writer began to be moved.
    moved: Option<u64>,
    near_misses: u64,
    silences: u64,
}

struct Link<'a> {
    well: &'a Well,
    core: Orchestrator,
    random: Random,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    open: [[bool; 2]; 2],
    sequence: [u64; 2],
    /// What the other region's agent knows of each region's server.
    seen: [(Sight, u64); 2],
    fresh: u64,
    death: Option<(Death, u64)>,
    came: Came,
}

impl<'a> Link<'a> {
    fn new(well: &'a Well, seed: u64) -> Link<'a> {
        let mut link = Link {
            well,
            core: well.core.clone(),
            random: Random::new(seed),
            now: well.now,
            order: 0,
            queue: BinaryHeap::new(),
            open: [[true; 2]; 2],
            sequence: [0; 2],
            seen: [(Sight::Answered, well.now); 2],
            fresh: 1,
            death: None,
            came: Came::default(),
        };
        link.after(0, Event::Tick);
        for place in 0..2 {
            for connection in 0..2 {
                link.after(connection as u64 * INTERVAL / 2, Event::Poll { place, connection });
            }
            for from in [Eyes::Orchestrator, Eyes::OtherRegion] {
                link.after(0, Event::Knock { from, place });
            }
        }
        link
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + wait, self.order, event)));
    }

    /// Whether a region has died this way by then.
    fn died(&self, place: usize, death: Death, by: u64) -> bool {
        place == 0 && self.death.is_some_and(|(how, when)| how == death && by >= when)
    }

    fn step(&mut self, input: Input) {
        let now = Now {
            moment: Moment::from_micros(self.now),
            wall: WallMillis((self.now / 1_000) as i64),
            fresh: format!("cccccccc-{:08}", self.fresh).parse().unwrap(),
        };
        for effect in self.core.step(&now, input) {
            match effect {
                Effect::Began(activity) => {
                    assert!(activity.kind.moves_writer(), "{} began", activity.kind);
                    self.came.moved.get_or_insert(self.now);
                }
                Effect::HeldBack(_) => {
                    self.fresh += 1;
                    self.came.near_misses += 1;
                }
                Effect::Store { .. } | Effect::Send { .. } | Effect::Load => {
                    assert!(self.came.moved.is_some(), "something is done, and nothing is wrong");
                }
                Effect::Ended { .. }
                | Effect::Note(_)
                | Effect::Refused { .. }
                | Effect::Explain { .. } => {}
            }
        }
    }

    /// Let it go on until then, or until the writer is moved.
    fn run(&mut self, until: u64) {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            self.now = at;
            if at >= until || self.came.moved.is_some() {
                return;
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.after(100 * MS, Event::Tick);
                self.step(Input::Tick);
            }
            Event::Poll { place, connection } => self.poll(place, connection),
            Event::Report { place, connection, made, newest, unanswered } => {
                // One connection asks at the interval, the other at once.
                let wait = [0, INTERVAL][connection];
                self.after(wait, Event::Poll { place, connection });
                self.report(place, made, newest, unanswered);
            }
            Event::Missed { place, connection } => {
                self.came.silences += 1;
                self.open[place][connection] = false;
                let wait = [INTERVAL / 4, INTERVAL][connection];
                self.after(wait, Event::Poll { place, connection });
                let why = "no answer in time".to_owned();
                self.step(Input::Missed { region: region(PLACES[place]), why });
            }
            Event::Knock { from, place } => {
                self.after(KNOCK_EVERY, Event::Knock { from, place });
                let takes = self.random.packets(4);
                let takes = takes.filter(|takes| *takes < KNOCK_MOST);
                let at = self.now + takes.unwrap_or(KNOCK_MOST);
                let came_to = match takes {
                    None => Sight::Silent,
                    Some(_) if self.died(place, Death::Silence, at) => Sight::Silent,
                    Some(_) if self.died(place, Death::Exit, at) => Sight::Refused,
                    Some(_) => Sight::Answered,
                };
                let wait = if came_to == Sight::Silent { KNOCK_MOST } else { at - self.now };
                self.after(wait, Event::Knocked { from, place, came_to });
            }
            Event::Knocked { from: Eyes::Orchestrator, place, came_to } => {
                let node = node(&format!("pg1.{}", PLACES[place]));
                self.step(Input::Knocked { node, knock: came_to.knock() });
            }
            Event::Knocked { from: Eyes::OtherRegion, place, came_to } => {
                let seen = &mut self.seen[place];
                seen.0 = came_to;
                if came_to == Sight::Answered {
                    seen.1 = self.now;
                }
            }
        }
    }

    fn poll(&mut self, place: usize, connection: usize) {
        let mut takes = 0;
        if !self.open[place][connection] {
            let opened = self.random.packets(2).filter(|takes| *takes < CONNECT);
            match opened {
                Some(opened) if !self.died(place, Death::Silence, self.now) => takes += opened,
                Some(_) | None => return self.after(CONNECT, Event::Missed { place, connection }),
            }
            self.open[place][connection] = true;
        }
        let waits = [INTERVAL, 0][connection];
        let made = self.now + takes + self.random.message() + waits;
        let arrives = made + self.random.message();
        let given_up = self.now + takes + waits + PATIENCE;
        if arrives > given_up || self.died(place, Death::Silence, arrives) {
            return self.after(given_up - self.now, Event::Missed { place, connection });
        }
        // As the agent knows it now, or a little later.
        let (newest, answered) = self.seen[1 - place];
        let unanswered = if newest == Sight::Answered { 0 } else { (made - answered) / MS };
        let report = Event::Report { place, connection, made, newest, unanswered };
        self.after(arrives - self.now, report);
    }

    fn report(&mut self, place: usize, made: u64, newest: Sight, unanswered: u64) {
        let mut report = self.well.reports[place].clone();
        self.sequence[place] = self.sequence[place].max(made);
        report.sequence = made;
        report.stamp_us = made;
        let other = node(&format!("pg1.{}", PLACES[1 - place]));
        let reach = Reach { newest: newest.knock(), unanswered_ms: unanswered };
        report.peers.insert(other, reach);
        if self.died(place, Death::Exit, made) {
            for one in report.nodes.values_mut() {
                if let NodeView::Postgres(view) = &mut one.view {
                    view.process = ProcessState::Stopped;
                    view.role = None;
                }
            }
        }
        self.step(Input::Report(report));
    }
}

fn many(usual: u64, long: u64) -> u64 {
    if std::env::var_os("TIER0_LONG").is_some() { long } else { usual }
}

/// Live through so many whiles, on every core.
fn live<T: Send>(count: u64, one: impl Fn(&Well, u64) -> T + Sync) -> Vec<T> {
    let (next, all) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let well = Well::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > count {
                        return;
                    }
                    let came = one(&well, seed);
                    all.lock().unwrap().push(came);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn link__hours_of_delay_and_loss__nothing_is_moved() {
    let hours = many(10, 1_000);
    let came = live(hours, |well, seed| {
        let mut link = Link::new(well, seed);
        link.run(well.now + HOUR);
        assert!(link.came.moved.is_none(), "hour {seed}: moved at {:?} µs", link.came.moved);
        link.came
    });
    let near_misses: u64 = came.iter().map(|came| came.near_misses).sum();
    let silences: u64 = came.iter().map(|came| came.silences).sum();
    eprintln!(
        "{hours} hours at 80 ± 20 ms each way with 2 % lost: 0 moves, {near_misses} near misses, \
         {silences} polls without an answer"
    );
    assert!(silences > hours, "the link is too kind: {silences} polls without an answer");
}

#[test]
fn link__a_death_in_the_midst_of_it__is_acted_on_every_time() {
    let deaths = many(1_000, 20_000);
    for death in [Death::Silence, Death::Exit] {
        let mut took = live(deaths, |well, seed| {
            let mut link = Link::new(well, seed);
            let dies = well.now + 5 * SECOND + link.random.below(20 * SECOND);
            link.death = Some((death, dies));
            link.run(dies + 20 * SECOND);
            let moved = link.came.moved;
            let moved = moved.unwrap_or_else(|| panic!("{death:?} {seed}: not acted on"));
            assert!(moved >= dies, "{death:?} {seed}: moved before anything died");
            (moved - dies) / MS
        });
        took.sort_unstable();
        let at = |part: usize| took[(took.len() - 1) * part / 100];
        eprintln!(
            "{deaths} times {death:?}: acted on after {} ms in the median, {} ms at 99 %, {} ms at \
             most",
            at(50),
            at(99),
            at(100)
        );
    }
}
