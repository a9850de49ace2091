//! The exhaustive model: every history within a budget, with the real core deciding. Each budget is
//! walked through whole; `TIER0_LONG` walks through larger ones, and `TIER0_WALKS=lost,doubled` through
//! these only. Left out: Redis, routes and leases, which the bad days have (`random.rs`).
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    non_snake_case
)]

mod model;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::beyond::BEYOND;
use model::{Budget, Reached, walk};
use tier0_core::orchestrator::{AUTOMATIC, DECIDER};
use tier0_core::record::DatastoreKind;
use tier0_core::steps::{Scope, Step, row};

/// How long one budget may take at most.
const MOST: Duration = Duration::from_secs(4 * 3_600);

/// How many distinct states the walks come to at least.
const STATES_LEAST: usize = 1_000_000;

/// A move, and a write at any moment of it.
const CALM: Budget = Budget { moves: 1, writes: 1, ..Budget::NONE };

/// The same, with one write before another is acknowledged.
const BUSY: Budget = Budget { writes: 2, ..CALM };

/// Nobody asks for a move, and time goes on.
const STILL: Budget = Budget { writes: 1, waits: 1, ..Budget::NONE };

/// One move, and each thing that can go wrong; or none, and what is repaired.
const WALKS: &[(&str, Budget)] = &[
    ("calm", CALM),
    ("agent-ends", Budget { agent_ends: 1, ..CALM }),
    ("store-lost", Budget { store_lost: 1, ..CALM }),
    ("lost", Budget { lost: 1, ..CALM }),
    ("doubled", Budget { doubled: 1, ..CALM }),
    ("core-ends", Budget { core_ends: 1, ..CALM }),
    ("misses", Budget { misses: 1, writes: 0, ..CALM }),
    ("busy", BUSY),
    ("busy-and-agent", Budget { agent_ends: 1, ..BUSY }),
    ("busy-and-lost", Budget { lost: 1, ..BUSY }),
    ("server-ends-still", Budget { server_ends: 1, ..STILL }),
    ("stream-breaks-still", Budget { cuts: 1, ..STILL }),
];

/// Two things at once.
const LONG_WALKS: &[(&str, Budget)] = &[
    ("server-ends", Budget { server_ends: 1, ..CALM }),
    ("stream-breaks", Budget { cuts: 1, waits: 1, ..CALM }),
    ("loss-accepted", Budget { moves: 0, moves_with_loss: 1, misses: 1, ..CALM }),
    ("core-and-agent", Budget { core_ends: 1, agent_ends: 1, ..CALM }),
    ("lost-and-doubled", Budget { lost: 1, doubled: 1, ..CALM }),
];

/// Everything that was walked through.
#[derive(Default)]
struct Walks {
    states: usize,
    did: Reached,
}

impl Walks {
    fn walk(&mut self, name: &str, budget: Budget) {
        let began = Instant::now();
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let walked = walk(budget, threads, MOST);
        eprintln!(
            "{name}: {} states, {} transitions, {} decisions of the core, {} deep, {:.1} s, reached {:?}",
            walked.states,
            walked.transitions,
            walked.decisions,
            walked.deepest,
            began.elapsed().as_secs_f32(),
            walked.reached
        );
        assert!(walked.wrong.is_none(), "{name}: {}", walked.wrong.unwrap_or_default());
        assert!(walked.whole, "{name}: not everything was walked through within {MOST:?}");
        let moves = budget.moves + budget.moves_with_loss > 0;
        let least: &[&str] = if moves {
            &["a move succeeds", "the old side joins"]
        } else {
            &["a copy joins again"]
        };
        for what in least {
            assert!(walked.reached.contains(what), "{name}: {:?}", walked.reached);
        }
        self.states += walked.states;
        self.did.add(&walked.did);
    }

    /// How often each row and step was reached, and which were not.
    fn tell(&self) {
        eprintln!("{} states in all", self.states);
        eprintln!("rows: {:?}, not reached: {:?}", self.did.rows, self.rows_missing());
        eprintln!("steps: {:?}, not reached: {:?}", self.did.steps, self.steps_missing());
    }

    fn rows_missing(&self) -> BTreeSet<&'static str> {
        let rows = DECIDER.iter().map(|row| row.id).chain(AUTOMATIC.iter().map(|row| row.id));
        rows.filter(|id| !self.did.rows.contains_key(id)).collect()
    }

    /// Steps of PostgreSQL or of the stack that no decision took.
    fn steps_missing(&self) -> BTreeSet<&'static str> {
        let here = |step: &&Step| match row(**step).scope {
            Scope::Stack => true,
            Scope::Each(kind) => kind == DatastoreKind::Postgres,
            Scope::EachRoute => false,
        };
        let all = Step::ALL.iter().filter(here);
        all.filter(|step| !self.did.steps.contains_key(step)).map(|step| step.id()).collect()
    }

    /// What was not reached is what the list says, no more and no less.
    fn compare(&self) {
        let missing: BTreeSet<_> =
            self.rows_missing().union(&self.steps_missing()).copied().collect();
        let listed: BTreeSet<_> = BEYOND.iter().flat_map(|one| one.what).copied().collect();
        assert_eq!(missing, listed, "what no walk reaches (left), and what is listed (right)");
        assert!(self.states >= STATES_LEAST, "only {} states", self.states);
    }
}

/// Those of the walks that are asked for.
fn asked_for(walks: &[(&'static str, Budget)]) -> Vec<(&'static str, Budget)> {
    let asked = std::env::var("TIER0_WALKS").unwrap_or_default();
    let is_asked = |name: &str| asked.is_empty() || asked.split(',').any(|one| one == name);
    walks.iter().filter(|(name, _)| is_asked(name)).copied().collect()
}

#[test]
fn model__one_move_and_each_thing_that_can_go_wrong() {
    let mut walks = Walks::default();
    for (name, budget) in asked_for(WALKS) {
        walks.walk(name, budget);
    }
    walks.tell();
    if asked_for(WALKS).len() == WALKS.len() {
        walks.compare();
    }
}

#[test]
fn beyond__each_row_that_no_walk_reaches_has_a_reason_and_a_test() {
    let mut tests = String::new();
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                tests += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    for one in BEYOND {
        assert!(one.why.len() >= 8, "{:?} says not why", one.what);
        assert!(tests.contains(&format!("fn {}(", one.by)), "{:?}: no test {}", one.what, one.by);
    }
}

#[test]
fn model__two_things_go_wrong_at_once() {
    if std::env::var_os("TIER0_LONG").is_none() {
        eprintln!("walked through with TIER0_LONG only");
        return;
    }
    let mut walks = Walks::default();
    for (name, budget) in asked_for(LONG_WALKS) {
        walks.walk(name, budget);
    }
    walks.tell();
}
