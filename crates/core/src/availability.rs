//! The account of availability: probes come in, and what comes out is when nobody was served on a
//! way, for how long clients were held, what nobody knows, and what is left of a year's budget.
//!
//! Time is cut into slots of a tenth of a second. A probe speaks for the slot in which it was *due*,
//! whenever it was answered; of several the one that was served counts, since a client may go
//! wherever that went. A slot that nobody probed is unknown: it is never called available. All is
//! whole milliseconds and slots, so that adding up loses nothing.
//!
//! Left out: how probes are made (the prober), where the account is kept, and what was being done
//! (the orchestrator).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::{DatastoreName, NodeId, OperationId};

/// The length of a slot, hence how exact all of this is.
pub const SLOT_MS: i64 = 100;

/// A year of 365.25 days.
pub const YEAR_MS: u64 = 31_557_600_000;

/// How long after it was due a probe may still come in.
const SETTLED_MS: i64 = 3_000;

/// So many served slots in a row end a window. It ends with the first of them.
const SERVED_TO_END: i64 = 3;

/// So many slots that nobody probed end a window, since it cannot be said that it goes on.
const UNKNOWN_TO_END: i64 = 50;

/// Windows that are kept one by one for each way; of older ones only the sums.
const WINDOWS_KEPT: usize = 500;

/// What a probe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// A commit, or a `SET` on the master.
    Write,
    /// An answer from any node that gives one.
    Read,
}

impl Access {
    /// As text.
    pub fn word(self) -> &'static str {
        match self {
            Access::Write => "write",
            Access::Read => "read",
        }
    }
}

/// One way on which clients are served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// Which datastore.
    pub datastore: DatastoreName,
    /// Through which route; none is by the list of its nodes.
    pub route: Option<NodeId>,
    /// What is done there.
    pub access: Access,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.datastore, self.access.word())?;
        match &self.route {
            Some(route) => write!(f, " through {route}"),
            None => Ok(()),
        }
    }
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Probed {
    /// It was served.
    Served {
        /// How long after it was due.
        held_ms: u32,
    },
    /// It met an error.
    Refused,
    /// It had no answer in time.
    Unanswered,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Its place among all probes of one prober's run.
    pub number: u64,
    /// On which way.
    pub way: Way,
    /// When it was due, in milliseconds since the prober's run began.
    pub due_ms: i64,
    /// What came of it.
    pub probed: Probed,
}

/// Why nobody was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Cause {
    /// Nothing that is in the history was done at that time.
    Unexplained,
    /// This operation was under way.
    Operation {
        /// Which one.
        id: OperationId,
        /// What it did.
        kind: String,
    },
}

/// A stretch in which nobody was served, in milliseconds of the wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// From the first slot that failed.
    pub from_ms: i64,
    /// To the first of the slots that were served again.
    pub to_ms: i64,
    /// Why.
    pub cause: Cause,
}

impl Window {
    /// How long it was.
    pub fn length_ms(&self) -> u64 {
        u64::try_from(self.to_ms - self.from_ms).unwrap_or(0)
    }
}

/// An operation, as far as it can be a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which one.
    pub id: OperationId,
    /// What it did.
    pub kind: String,
    /// When it was accepted, by the wall clock.
    pub from_ms: i64,
    /// When it ended, or now.
    pub to_ms: i64,
}

/// What the probes of one slot say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Served { held_ms: u32 },
    Failed,
}

/// A window that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    from: i64,
    served: i64,
    unknown: i64,
}

/// The account of one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WayAccount {
    /// Which way.
    pub way: Way,
    /// The slots in which somebody was served.
    pub served: u64,
    /// Those of them in which that took more than a slot's length.
    pub held: u64,
    /// The slots in which nobody was.
    pub failed: u64,
    /// The slots that nobody probed.
    pub unknown: u64,
    /// Probes that met an error or had no answer, of all probers.
    pub errors: u64,
    /// The longest that a slot's fastest probe was held.
    pub longest_held_ms: u32,
    /// How many windows there were.
    pub windows_total: u64,
    /// How long all of them were together.
    pub down_ms: u64,
    /// The newest ones, oldest first.
    pub windows: VecDeque<Window>,
    next: Option<i64>,
    open: Option<Open>,
    #[serde(skip)]
    pending: BTreeMap<i64, Slot>,
    #[serde(skip)]
    last: Option<Slot>,
}

impl WayAccount {
    fn new(way: Way) -> WayAccount {
        WayAccount {
            way,
            served: 0,
            held: 0,
            failed: 0,
            unknown: 0,
            errors: 0,
            longest_held_ms: 0,
            windows_total: 0,
            down_ms: 0,
            windows: VecDeque::new(),
            next: None,
            open: None,
            pending: BTreeMap::new(),
            last: None,
        }
    }

    /// Since when nobody has been served, if that is so.
    pub fn down_since_ms(&self) -> Option<i64> {
        self.open.map(|open| open.from * SLOT_MS)
    }

    /// Available of what is known, in billionths, rounded down.
    pub fn available_billionths(&self) -> Option<u64> {
        let known = self.served + self.failed;
        (known > 0).then(|| billionths(self.served, known))
    }

    fn take(&mut self, due_ms: i64, probed: Probed) {
        let slot = due_ms.div_euclid(SLOT_MS);
        let new = match probed {
            Probed::Served { held_ms } => Slot::Served { held_ms },
            Probed::Refused | Probed::Unanswered => {
                self.errors += 1;
                Slot::Failed
            }
        };
        if self.next.is_some_and(|next| slot < next) {
            return;
        }
        let both = match (self.pending.get(&slot), new) {
            (None, new) => new,
            (Some(Slot::Failed), new) => new,
            (Some(old @ Slot::Served { .. }), Slot::Failed) => *old,
            (Some(Slot::Served { held_ms: one }), Slot::Served { held_ms: other }) => {
                Slot::Served { held_ms: other.min(*one) }
            }
        };
        self.pending.insert(slot, both);
    }

    fn advance(&mut self, until: i64) {
        let first = self.pending.keys().next().copied();
        let Some(mut next) = self.next.or(first) else { return };
        while next < until {
            match self.pending.pop_first() {
                Some((slot, state)) if slot == next => {
                    self.close(next, state);
                    next += 1;
                }
                other => {
                    let known = other.map_or(until, |(slot, _)| slot.min(until));
                    if let Some((slot, state)) = other {
                        self.pending.insert(slot, state);
                    }
                    self.nobody_probed(next, known);
                    next = known;
                }
            }
        }
        self.next = Some(next);
    }

    /// What is known of a slot is added up.
    fn close(&mut self, slot: i64, state: Slot) {
        self.last = Some(state);
        match state {
            Slot::Served { held_ms } => {
                self.served += 1;
                if i64::from(held_ms) > SLOT_MS {
                    self.held += 1;
                }
                self.longest_held_ms = self.longest_held_ms.max(held_ms);
                if let Some(open) = &mut self.open {
                    open.served += 1;
                    open.unknown = 0;
                    if open.served == SERVED_TO_END {
                        self.end_window(slot + 1 - SERVED_TO_END);
                    }
                }
            }
            Slot::Failed => {
                self.failed += 1;
                let open = self.open.get_or_insert(Open { from: slot, served: 0, unknown: 0 });
                (open.served, open.unknown) = (0, 0);
            }
        }
    }

    /// Slots without a probe. A single one between others is where two clocks meet: the probe before
    /// it speaks for it too.
    fn nobody_probed(&mut self, from: i64, to: i64) {
        let mut from = from;
        if let Some(last) = self.last.take() {
            self.close(from, last);
            self.last = None;
            from += 1;
        }
        if from >= to {
            return;
        }
        self.unknown += (to - from) as u64;
        if let Some(open) = &mut self.open {
            open.served = 0;
            let began = from - open.unknown;
            open.unknown += to - from;
            if open.unknown >= UNKNOWN_TO_END {
                self.end_window(began);
            }
        }
    }

    fn end_window(&mut self, to: i64) {
        let Some(open) = self.open.take() else { return };
        let (from_ms, to_ms) = (open.from * SLOT_MS, to * SLOT_MS);
        let window = Window { from_ms, to_ms, cause: Cause::Unexplained };
        self.windows_total += 1;
        self.down_ms += window.length_ms();
        if self.windows.len() == WINDOWS_KEPT {
            self.windows.pop_front();
        }
        self.windows.push_back(window);
    }
}

/// The account of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Since when it is kept, in milliseconds of the wall clock.
    pub since_ms: i64,
    /// For how long a datastore had a single copy.
    pub exposed_ms: u64,
    /// For how long it could not be proven that it had two.
    pub at_risk_ms: u64,
    ways: Vec<WayAccount>,
}

impl Account {
    /// One that begins now.
    pub fn begin(now_ms: i64) -> Account {
        Account { since_ms: now_ms, exposed_ms: 0, at_risk_ms: 0, ways: Vec::new() }
    }

    /// Each way that was ever probed.
    pub fn ways(&self) -> &[WayAccount] {
        &self.ways
    }

    /// A probe that was due then, by the wall clock of whoever keeps the account.
    pub fn take(&mut self, way: &Way, due_ms: i64, probed: Probed) {
        let at = match self.ways.binary_search_by(|one| one.way.cmp(way)) {
            Ok(at) => at,
            Err(at) => {
                self.ways.insert(at, WayAccount::new(way.clone()));
                at
            }
        };
        self.ways[at].take(due_ms, probed);
    }

    /// Add up every slot for which no probe can come in any more.
    pub fn advance(&mut self, now_ms: i64) {
        let until = (now_ms - SETTLED_MS).div_euclid(SLOT_MS);
        self.ways.iter_mut().for_each(|way| way.advance(until));
    }

    /// Whether a window of the last minutes has no cause yet.
    pub fn wants_causes(&self, now_ms: i64) -> bool {
        let recent = |window: &Window| now_ms - window.to_ms < 120_000;
        let unexplained = |window: &Window| window.cause == Cause::Unexplained;
        self.ways.iter().flat_map(|way| &way.windows).any(|one| recent(one) && unexplained(one))
    }

    /// Name what was under way in windows that have no cause. Of several that of the first counts.
    pub fn explain(&mut self, done: &Done) {
        // A window is as exact as a slot, and so is where it begins.
        let (from, to) = (done.from_ms - SLOT_MS, done.to_ms + SLOT_MS);
        for window in self.ways.iter_mut().flat_map(|way| &mut way.windows) {
            let overlaps = window.from_ms <= to && window.to_ms >= from;
            if overlaps && window.cause == Cause::Unexplained {
                window.cause = Cause::Operation { id: done.id.clone(), kind: done.kind.clone() };
            }
        }
    }

    /// For how long some datastore took no writes from anybody in the year before `now`, windows that
    /// overlap counted once, and one that has not ended counted until now.
    pub fn down_in_a_year_ms(&self, now_ms: i64) -> u64 {
        let year_ago = now_ms - YEAR_MS as i64;
        let ways = self.ways.iter();
        let counts = |one: &&WayAccount| one.way.route.is_none() && one.way.access == Access::Write;
        let mut spans: Vec<(i64, i64)> = Vec::new();
        for way in ways.filter(counts) {
            spans.extend(way.windows.iter().map(|window| (window.from_ms, window.to_ms)));
            spans.extend(way.down_since_ms().map(|from| (from, now_ms)));
        }
        let clipped = spans.into_iter().map(|(from, to)| (from.max(year_ago), to.min(now_ms)));
        union_ms(clipped.collect())
    }
}

/// How long these stretches are, what overlaps counted once.
fn union_ms(mut spans: Vec<(i64, i64)>) -> u64 {
    spans.sort_unstable();
    let mut total = 0;
    let mut reached = i64::MIN;
    for (from, to) in spans {
        let from = from.max(reached);
        if to > from {
            total += u64::try_from(to - from).unwrap_or(0);
            reached = to;
        }
    }
    total
}

/// A part of a whole in billionths, rounded down.
pub fn billionths(part: u64, of: u64) -> u64 {
    let exact = u128::from(part) * 1_000_000_000 / u128::from(of.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// Billionths as a percentage with seven digits, as in `99.9999900`.
pub fn percent(billionths: u64) -> String {
    format!("{}.{:07}", billionths / 10_000_000, billionths % 10_000_000)
}

/// How much of a year is available where this much is not, in billionths, rounded down.
pub fn available_in_a_year(down_ms: u64) -> u64 {
    billionths(YEAR_MS.saturating_sub(down_ms), YEAR_MS)
}

/// Something that is expected to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// What.
    pub name: String,
    /// How often in a thousand years.
    pub in_a_thousand_years: u64,
    /// For how long nobody is served then.
    pub lasts_ms: u64,
}

impl Expected {
    /// Milliseconds a year, in thousandths.
    pub fn thousandths_of_ms(&self) -> u128 {
        u128::from(self.in_a_thousand_years) * u128::from(self.lasts_ms)
    }
}

/// For how long nobody is served in a year in which all of this happens as often as expected,
/// rounded up to a millisecond.
pub fn expected_down_ms(all: &[Expected]) -> u64 {
    let sum: u128 = all.iter().map(Expected::thousandths_of_ms).sum();
    u64::try_from(sum.div_ceil(1_000)).unwrap_or(u64::MAX)
}
