//! The real core inside the model: every decision is a call of `Orchestrator::step`. Since many
//! histories bring the core into the same state, what a step comes to is kept for a while and found
//! again.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Write};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tier0_core::orchestrator::{Effect, Input, Noted, Now, Orchestrator};
use tier0_core::steps::Step;

/// A core and what tells it from others.
#[derive(Clone)]
pub struct Core {
    pub orchestrator: Arc<Orchestrator>,
    digest: u128,
}

/// Two independent 64-bit sums over what is written.
struct Sum(u64, u64);

impl Write for Sum {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(bytes) ^ (chunk.len() as u64) << 56;
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.1 = (self.1 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
        }
        Ok(())
    }
}

/// What tells a value from others: everything that its debug form shows.
pub fn digest(value: &impl Debug) -> u128 {
    let mut sum = Sum(1, 2);
    write!(sum, "{value:?}").expect("a sum takes everything");
    u128::from(sum.0) << 64 | u128::from(sum.1)
}

impl Core {
    pub fn new(orchestrator: Orchestrator) -> Core {
        let digest = digest(&orchestrator);
        Core { orchestrator: Arc::new(orchestrator), digest }
    }
}

impl Hash for Core {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl PartialEq for Core {
    fn eq(&self, other: &Core) -> bool {
        self.digest == other.digest
    }
}

impl Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let activities: Vec<String> = self
            .orchestrator
            .activities()
            .map(|one| format!("{} {:?}", one.kind, one.phase))
            .collect();
        write!(f, "core {:x} {activities:?}", self.digest)
    }
}

/// What a step came to, as far as the model looks at it.
pub struct Decided {
    pub core: Core,
    /// How many operations it began.
    pub began: u8,
    /// Stores, loads and commands.
    pub effects: Vec<Effect>,
}

type Found = Arc<Decided>;
type Shelf = Mutex<HashMap<(u128, u128), Found>>;

/// How many steps are kept on a shelf before it is emptied: cores are large.
const KEPT: usize = 300;

/// How often each row of the tables explained a decision, and each step began.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    pub rows: BTreeMap<&'static str, usize>,
    pub steps: BTreeMap<Step, usize>,
}

impl Reached {
    pub fn add(&mut self, other: &Reached) {
        for (row, count) in &other.rows {
            *self.rows.entry(row).or_default() += count;
        }
        for (step, count) in &other.steps {
            *self.steps.entry(*step).or_default() += count;
        }
    }

    fn note(&mut self, now: &Now, core: &Orchestrator, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Explain { row, .. } => *self.rows.entry(row).or_default() += 1,
                Effect::Send { key, .. } => *self.steps.entry(key.step).or_default() += 1,
                // Steps that send nothing: the record, and what is only looked at.
                Effect::Note(note) => {
                    if let (Some(key), Noted::Ends { sentence }) = (&note.key, &note.what)
                        && note.node.is_none()
                        && sentence.starts_with("done")
                    {
                        *self.steps.entry(key.step).or_default() += 1;
                    }
                }
                Effect::Store { .. }
                | Effect::Load
                | Effect::Began(_)
                | Effect::Ended { .. }
                | Effect::HeldBack(_)
                | Effect::Refused { .. } => {}
            }
        }
        let Some(record) = core.record() else { return };
        let Some(other) = core.settings().shape.other(&record.writer) else { return };
        for name in core.settings().shape.datastores.keys() {
            if let Some(row) = core.matching_row(now, record, name, other) {
                *self.rows.entry(row.id).or_default() += 1;
            }
        }
    }
}

/// What each step came to that was made a while ago.
pub struct Decisions {
    shelves: Vec<Shelf>,
    made: AtomicUsize,
    reached: Mutex<Reached>,
}

impl Decisions {
    pub fn new() -> Decisions {
        Decisions {
            shelves: (0..64).map(|_| Mutex::default()).collect(),
            made: AtomicUsize::new(0),
            reached: Mutex::default(),
        }
    }

    /// What an input comes to. `mark` tells it and the time from others; it is made only where that
    /// is not known yet, since making and telling large inputs apart takes longer than deciding.
    pub fn step(
        &self,
        core: &Core,
        mark: u128,
        now: impl FnOnce() -> Now,
        input: impl FnOnce() -> Input,
    ) -> Found {
        let key = (core.digest, mark);
        let shelf = &self.shelves[(key.0 ^ key.1) as usize % self.shelves.len()];
        if let Some(found) = shelf.lock().unwrap().get(&key) {
            return found.clone();
        }
        let now = now();
        let mut orchestrator = (*core.orchestrator).clone();
        let mut effects = orchestrator.step(&now, input());
        self.reached.lock().unwrap().note(&now, &orchestrator, &effects);
        let began = effects.iter().filter(|it| matches!(it, Effect::Began(_))).count() as u8;
        effects
            .retain(|it| matches!(it, Effect::Store { .. } | Effect::Load | Effect::Send { .. }));
        effects.shrink_to_fit();
        let core = Core::new(orchestrator);
        let found: Found = Arc::new(Decided { core, began, effects });
        self.made.fetch_add(1, Ordering::Relaxed);
        let mut shelf = shelf.lock().unwrap();
        if shelf.len() >= KEPT {
            shelf.clear();
        }
        shelf.insert(key, found.clone());
        found
    }

    pub fn reached(&self) -> Reached {
        self.reached.lock().unwrap().clone()
    }

    /// How many steps were made.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}
