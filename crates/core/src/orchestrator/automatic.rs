//! Whether the writer is moved without being asked, as a table (O3). The first row that matches
//! decides; what holds a move back is said as loudly as a move.
//!
//! Nothing here is what keeps writes safe: a writer that is wrongly taken for dead is moved by the
//! same operation as on command, which promotes only members of the takeover set and fences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::guard::Guard;
use crate::observe::{NodeView, OnProcessDeath, PostgresRole, ProcessState};
use crate::record::{AutomaticMode, DatastoreKind, OperationKind, Record};
use crate::words::{DatastoreName, Moment, NodeId, OperationId, Region, WallMillis};

use super::activity::Ended;
use super::input::{Consent, Now};
use super::output::Effect;
use super::reach::Sight;
use super::requests::Beginning;
use super::seat::Votes;
use super::{MovePolicy, Orchestrator};

/// Why a writer's server counts as dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Its own agent says that the process has ended.
    Exit,
    /// Its own agent says that nothing comes back from it.
    Hang,
    /// Nothing is heard of it or of its agent, here and in the other region.
    Silence,
}

impl Cause {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Exit => "exit",
            Cause::Hang => "hang",
            Cause::Silence => "silence",
        }
    }
}

/// What the writer's own agent says of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It has ended.
    Ended,
    /// Nothing has come back from it for so long.
    Hangs(Duration),
    /// The agent itself has not been heard for so long.
    Silent(Duration),
}

/// A writer's server that is not as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// Which node.
    pub node: NodeId,
    /// What its own agent says.
    pub word: Word,
    /// How it looks to the orchestrator.
    pub from_here: Sight,
    /// How it looks to the other region's agent.
    pub from_target: Sight,
    /// What the sites say of it that have an orchestrator.
    pub votes: Votes,
    /// Why it counts as dead, once it does.
    pub cause: Option<Cause>,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match self.word {
            Word::Ended => write!(f, "{node}: its agent says that the server has ended"),
            Word::Hangs(time) => {
                write!(f, "{node}: nothing has come back from it for {} ms", time.as_millis())
            }
            Word::Silent(time) => {
                write!(f, "{node}: its agent has been silent for {} ms", time.as_millis())
            }
        }
    }
}

/// Everything a row may look at.
pub struct Watched<'a> {
    /// The worst doubt about a writer's server.
    pub doubt: Option<&'a Doubt>,
    /// The detection window.
    pub window: Duration,
    /// An operation owns the stack.
    pub busy: bool,
    /// This orchestrator has seen the writer alive, or has waited long enough for it.
    pub settled: bool,
    /// The datastore in doubt is started again where it is when its process ends.
    pub restarts: bool,
    /// The other region's agent is not heard.
    pub target_silent: bool,
    /// The other region's agent is heard again, after a silence, for less than a window.
    pub target_heard_again: bool,
    /// A standby in the other region does not run.
    pub target_down: bool,
    /// A standby in the other region is not in the takeover set.
    pub unproven: bool,
    /// The store that the orchestrators share has said nothing for long.
    pub store_silent: bool,
    /// Another move for this cause was made a short while ago.
    pub cooling: bool,
    /// What is set.
    pub mode: AutomaticMode,
}

impl Watched<'_> {
    fn is_dead(&self) -> bool {
        self.doubt.is_some_and(|doubt| doubt.cause.is_some())
    }

    /// Nothing is seen of it here and in the other region, but fewer sites say so than are more than
    /// half, for twice as long as is enough.
    fn lacks_votes(&self) -> bool {
        self.doubt.is_some_and(|doubt| {
            let long = matches!(doubt.word, Word::Silent(time) if time >= self.window * 2);
            let unseen =
                doubt.from_here.is_blind(self.window) && doubt.from_target.is_blind(self.window);
            long && unseen && !doubt.votes.are_enough()
        })
    }

    /// Whether its agent has been silent for a whole window and it looks so.
    fn silent_and(&self, looks: impl Fn(&Doubt) -> bool) -> bool {
        self.doubt.is_some_and(|doubt| {
            matches!(doubt.word, Word::Silent(time) if time >= self.window) && looks(doubt)
        })
    }
}

/// One row.
pub struct AutomaticRow {
    /// Stable id; never used again for something else.
    pub id: &'static str,
    /// Whether it matches.
    pub applies: fn(&Watched) -> bool,
    /// What follows.
    pub reaction: Reaction,
    /// Why, for people.
    pub sentence: &'static str,
}

/// What a row comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing is wrong, or it is repaired where it is.
    Nothing,
    /// It is looked at again.
    Wait,
    /// The writer is not moved, and that is recorded as a near miss.
    HoldBack,
    /// The writer is moved.
    Move,
}

/// The table.
pub const AUTOMATIC: &[AutomaticRow] = &[
    AutomaticRow {
        id: "A01",
        applies: |it| it.doubt.is_none(),
        reaction: Reaction::Nothing,
        sentence: "every writer's server answers",
    },
    AutomaticRow {
        id: "A02",
        applies: |it| it.busy,
        reaction: Reaction::Wait,
        sentence: "an operation owns the stack",
    },
    AutomaticRow {
        id: "A03",
        applies: |it| !it.settled,
        reaction: Reaction::Wait,
        sentence: "this orchestrator has only just begun and has not seen the writer alive",
    },
    AutomaticRow {
        id: "A04",
        applies: |it| {
            it.restarts && it.doubt.is_some_and(|doubt| matches!(doubt.word, Word::Ended))
        },
        reaction: Reaction::Nothing,
        sentence: "a server of this datastore that ends is started again where it is",
    },
    AutomaticRow {
        id: "A05",
        applies: |it| it.silent_and(|doubt| doubt.from_here == Sight::Sees),
        reaction: Reaction::HoldBack,
        sentence: "the writer's agent is silent, but its server answers the orchestrator",
    },
    AutomaticRow {
        id: "A06",
        applies: |it| it.silent_and(|doubt| doubt.from_target == Sight::Sees),
        reaction: Reaction::HoldBack,
        sentence: "the writer's server answers the other region: a link is dead, not a region",
    },
    AutomaticRow {
        id: "A16",
        applies: |it| it.silent_and(|doubt| doubt.votes.sees.is_some()),
        reaction: Reaction::HoldBack,
        sentence: "the writer's region answers another orchestrator: a link is dead, not a region",
    },
    AutomaticRow {
        id: "A07",
        applies: |it| it.target_silent && (it.is_dead() || it.silent_and(|_| true)),
        reaction: Reaction::HoldBack,
        sentence: "the other region's agent is silent as well: no second vote, and nobody to promote",
    },
    AutomaticRow {
        id: "A15",
        applies: |it| it.target_heard_again && it.silent_and(|_| true),
        reaction: Reaction::Wait,
        sentence: "the other region's agent was silent too until just now: the writer's may be heard next",
    },
    AutomaticRow {
        id: "A17",
        applies: |it| it.lacks_votes(),
        reaction: Reaction::HoldBack,
        sentence: "fewer sites than a majority say that the writer's region is silent",
    },
    AutomaticRow {
        id: "A08",
        applies: |it| !it.is_dead(),
        reaction: Reaction::Wait,
        sentence: "it has not been so for long enough to say that the writer is dead",
    },
    AutomaticRow {
        id: "A18",
        applies: |it| it.store_silent,
        reaction: Reaction::HoldBack,
        sentence: "the store of the record does not answer: no move can be recorded",
    },
    AutomaticRow {
        id: "A09",
        applies: |it| it.unproven,
        reaction: Reaction::HoldBack,
        sentence: "a standby is not in the takeover set: acknowledged writes could be lost",
    },
    AutomaticRow {
        id: "A10",
        applies: |it| it.target_down,
        reaction: Reaction::HoldBack,
        sentence: "a standby of the other region does not run",
    },
    AutomaticRow {
        id: "A11",
        applies: |it| it.mode == AutomaticMode::Off && Guard::OnlyArmedMoves.holds(),
        reaction: Reaction::HoldBack,
        sentence: "automatic moves are off",
    },
    AutomaticRow {
        id: "A12",
        applies: |it| it.cooling,
        reaction: Reaction::HoldBack,
        sentence: "the writer was moved for this cause a short while ago",
    },
    AutomaticRow {
        id: "A13",
        applies: |it| it.mode == AutomaticMode::Observe,
        reaction: Reaction::HoldBack,
        sentence: "automatic moves are only observed: armed, the writer would be moved now",
    },
    AutomaticRow {
        id: "A14",
        applies: |_| true,
        reaction: Reaction::Move,
        sentence: "the writer is dead, by a majority of sites, and the other region holds every acknowledged write",
    },
];

/// A move that was held back.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// The id under which it stands in the history.
    pub id: OperationId,
    /// When.
    pub wall: WallMillis,
    /// The row that held it back.
    pub row: &'static str,
    /// Where the writer would have gone.
    pub target: Region,
    /// What was wrong, and why nothing was done.
    pub sentence: String,
}

/// What is remembered between two looks.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    began: Option<Moment>,
    lived: BTreeSet<NodeId>,
    hangs_since: BTreeMap<NodeId, Moment>,
    row: Option<&'static str>,
    held_back: Option<(&'static str, NodeId)>,
    near_miss: Option<NearMiss>,
    not_before: BTreeMap<Cause, Moment>,
}

impl Watch {
    /// This run acts, from now on if it has not before.
    pub(super) fn begin(&mut self, now: Moment) {
        self.began.get_or_insert(now);
    }

    /// This run acts no more, for now. What it saw alive it goes on seeing.
    pub(super) fn end(&mut self) {
        let lived = std::mem::take(&mut self.lived);
        let hangs_since = std::mem::take(&mut self.hangs_since);
        *self = Watch { lived, hangs_since, ..Watch::default() };
    }

    /// When this run began to act.
    pub(super) fn began(&self) -> Moment {
        self.began.unwrap_or_default()
    }
}

/// How many detection windows an orchestrator that has just begun waits for a writer that it has
/// not seen alive.
const SETTLES_IN: u32 = 10;

/// After how many windows without an answer a server whose process is there counts as dead. A
/// region's silence is confirmed by two places; this is one agent's word, and overload is not death.
const HANG_WINDOWS: u32 = 2;

/// The same for what a busy server may do as well: hold up new sessions, or everything, for one
/// slow command.
const BUSY_WINDOWS: u32 = 3;

/// How long an automatic move that came to nothing waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Orchestrator {
    /// The row that says why the writer is, or is not, being moved.
    pub fn automatic_row(&self) -> Option<&'static AutomaticRow> {
        let id = self.watch.row?;
        AUTOMATIC.iter().find(|row| row.id == id)
    }

    /// The newest move that was held back in this run.
    pub fn near_miss(&self) -> Option<&NearMiss> {
        self.watch.near_miss.as_ref()
    }

    /// Look at the writer. Whether the input's fresh id was used.
    pub(super) fn watch_writer(&mut self, now: &Now, out: &mut Vec<Effect>) -> bool {
        let began = self.watch.began();
        let Some(record) = self.record.clone() else { return false };
        let Some(target) = self.settings.shape.other(&record.writer).cloned() else { return false };
        let doubt = self.worst_doubt(now, &record, &target);
        let watched = self.watched(now, &record, &target, began, doubt.as_ref());
        let Some(row) = AUTOMATIC.iter().find(|row| (row.applies)(&watched)) else { return false };
        if self.watch.row != Some(row.id) {
            self.watch.row = Some(row.id);
            out.push(Effect::Explain {
                row: row.id,
                subject: "the writer".to_owned(),
                sentence: row.sentence,
            });
        }
        let Some(doubt) = doubt else {
            self.watch.held_back = None;
            return false;
        };
        let region = doubt.node.region();
        let known = self.seen.region(region).and_then(|seen| seen.report.as_ref());
        if let (Some(Cause::Silence), Some((report, _))) = (doubt.cause, known) {
            self.timing.suspect(region, &report.run, record.epoch);
        }
        match row.reaction {
            Reaction::Nothing | Reaction::Wait => false,
            Reaction::HoldBack => self.hold_back(now, row, &doubt, target, out),
            Reaction::Move => {
                self.move_writer(now, row, &doubt, target, out);
                true
            }
        }
    }

    fn hold_back(
        &mut self,
        now: &Now,
        row: &AutomaticRow,
        doubt: &Doubt,
        target: Region,
        out: &mut Vec<Effect>,
    ) -> bool {
        let this = (row.id, doubt.node.clone());
        if self.watch.held_back.as_ref() == Some(&this) {
            return false;
        }
        self.watch.held_back = Some(this);
        let near_miss = NearMiss {
            id: now.fresh.clone(),
            wall: now.wall,
            row: row.id,
            target,
            sentence: format!("{doubt}; {} ({})", row.sentence, row.id),
        };
        self.watch.near_miss = Some(near_miss.clone());
        out.push(Effect::HeldBack(near_miss));
        true
    }

    fn move_writer(
        &mut self,
        now: &Now,
        row: &AutomaticRow,
        doubt: &Doubt,
        target: Region,
        out: &mut Vec<Effect>,
    ) {
        self.watch.held_back = None;
        if let Some(cause) = doubt.cause {
            let not_before = now.moment.after(self.settings.limits.cool_down);
            self.watch.not_before.insert(cause, not_before);
        }
        let beginning = Beginning {
            id: now.fresh.clone(),
            kind: OperationKind::Failover,
            target,
            node: None,
            consent: Consent::None,
            by: format!("decider row {}", row.id),
            reason: doubt.to_string(),
            cause: doubt.cause,
            arming: None,
        };
        self.start(now, beginning, out);
    }

    /// An automatic move ended. One that did not move the writer is tried again soon, not after a
    /// whole cool-down.
    pub(super) fn note_automatic(&mut self, now: &Now, cause: Cause, ended: &Ended) {
        match ended {
            Ended::Succeeded
            | Ended::WithExceptions { .. }
            | Ended::Failed { .. }
            | Ended::Unknown { .. } => {}
            Ended::Refused { .. } | Ended::Aborted { .. } => {
                self.watch.not_before.insert(cause, now.moment.after(AGAIN_AFTER));
            }
        }
    }

    /// Keep which of the writer's servers were seen alive, and since when one hangs.
    pub(super) fn note_living(&mut self) {
        let Some(record) = &self.record else { return };
        let Some(seen) = self.seen.region(&record.writer) else { return };
        let Some((report, at)) = &seen.report else { return };
        for (node, report) in &report.nodes {
            let process = match &report.view {
                NodeView::Postgres(view) => view.process,
                NodeView::Redis(view) => view.process,
                NodeView::Route(_) => continue,
            };
            if process == ProcessState::Silent {
                self.watch.hangs_since.entry(node.clone()).or_insert(*at);
            } else {
                self.watch.hangs_since.remove(node);
            }
            if process == ProcessState::Running {
                self.watch.lived.insert(node.clone());
            }
        }
    }

    fn watched<'a>(
        &self,
        now: &Now,
        record: &Record,
        target: &Region,
        began: Moment,
        doubt: Option<&'a Doubt>,
    ) -> Watched<'a> {
        let silence = self.window();
        let postgres = |kind: DatastoreKind| kind == DatastoreKind::Postgres;
        let standbys: Vec<NodeId> = record
            .datastores
            .iter()
            .filter(|(_, datastore)| postgres(datastore.kind))
            .map(|(name, _)| NodeId::new(name.clone(), target.clone()))
            .collect();
        let runs = |node: &NodeId| {
            self.seen.postgres(node).is_some_and(|view| {
                view.process == ProcessState::Running && view.role == Some(PostgresRole::Standby)
            })
        };
        let proven = |node: &NodeId| {
            let datastore = record.datastores.get(node.datastore());
            datastore.is_some_and(|datastore| datastore.takeover.contains_key(node))
        };
        Watched {
            doubt,
            window: silence,
            busy: record.claim.is_some()
                || self.activities.values().any(|activity| activity.kind.moves_writer()),
            settled: now.moment.since(began) >= silence * SETTLES_IN
                || doubt.is_some_and(|doubt| self.watch.lived.contains(&doubt.node)),
            restarts: doubt.is_some_and(|doubt| {
                let shape = self.settings.shape.datastores.get(doubt.node.datastore());
                shape.is_some_and(|shape| shape.on_process_death == OnProcessDeath::Restart)
            }),
            target_silent: self.seen.agent_silent(target, now.moment, silence).is_some(),
            target_heard_again: self
                .seen
                .region(target)
                .and_then(|seen| seen.again)
                .is_some_and(|again| now.moment.since(again) < silence),
            target_down: standbys.iter().any(|node| !runs(node)),
            unproven: standbys.iter().any(|node| !proven(node)),
            cooling: doubt.and_then(|doubt| doubt.cause).is_some_and(|cause| {
                self.watch.not_before.get(&cause).is_some_and(|until| *until > now.moment)
            }),
            store_silent: self.store_is_silent(now).is_some(),
            mode: record.automatic.mode_at(now.wall),
        }
    }

    /// A server that is dead, else one in doubt, among those whose loss concerns the whole stack.
    fn worst_doubt(&self, now: &Now, record: &Record, target: &Region) -> Option<Doubt> {
        let doubts: Vec<Doubt> = self
            .settings
            .shape
            .datastores
            .iter()
            .filter(|(_, shape)| {
                shape.policy == MovePolicy::Required
                    || shape.on_process_death == OnProcessDeath::Failover
            })
            .filter_map(|(name, _)| self.doubt(now, record, target, name))
            .collect();
        let dead = doubts.iter().find(|doubt| doubt.cause.is_some()).cloned();
        dead.or_else(|| doubts.into_iter().next())
    }

    fn doubt(
        &self,
        now: &Now,
        record: &Record,
        target: &Region,
        name: &DatastoreName,
    ) -> Option<Doubt> {
        let node = NodeId::new(name.clone(), record.writer.clone());
        let from_here = self.reach.sight(now.moment, &node);
        let word = self.word(now, &node, from_here)?;
        let from_target = self.sight_from(now, target, &node);
        let votes = self.votes(now, target, &node, from_here, from_target);
        let window = self.window();
        let cause = match word {
            Word::Ended => Some(Cause::Exit),
            Word::Hangs(time) => {
                let redis = self.seen.redis(&node).is_some();
                let windows = if redis { BUSY_WINDOWS } else { HANG_WINDOWS };
                let unseen = !redis || from_here.is_blind(window * windows);
                (time >= window * windows && unseen).then_some(Cause::Hang)
            }
            Word::Silent(time) => {
                // A host that refuses is known to be there: less time says as much.
                let refused = matches!(from_here, Sight::Refused(_));
                let long = time >= window || refused && time >= window / 3;
                let unseen = from_here.is_blind(window) && from_target.is_blind(window);
                (long && unseen && votes.are_enough()).then_some(Cause::Silence)
            }
        };
        Some(Doubt { node, word, from_here, from_target, votes, cause })
    }

    /// What the writer's own agent says; `None` if its server works.
    fn word(&self, now: &Now, node: &NodeId, from_here: Sight) -> Option<Word> {
        let window = self.window();
        let region = node.region();
        if self.seen.agent_silent(region, now.moment, window).is_some() {
            let began = self.watch.began.unwrap_or(now.moment);
            let age = self.seen.region(region).and_then(|seen| seen.age(now.moment));
            return Some(Word::Silent(age.unwrap_or(now.moment.since(began))));
        }
        let hangs_for = || self.watch.hangs_since.get(node).map(|since| now.moment.since(*since));
        match self.seen.view(node)? {
            NodeView::Route(_) => None,
            NodeView::Redis(view) => match view.process {
                ProcessState::Stopped => Some(Word::Ended),
                ProcessState::Silent => hangs_for().map(Word::Hangs),
                ProcessState::Running
                | ProcessState::Starting
                | ProcessState::NoData
                | ProcessState::Unusable => None,
            },
            NodeView::Postgres(view) => match view.process {
                ProcessState::Stopped => Some(Word::Ended),
                ProcessState::Silent => hangs_for().map(Word::Hangs),
                ProcessState::Running => {
                    let probe = view.commits.as_ref()?;
                    let kept = Duration::from_millis(probe.kept_failing_ms);
                    let fresh = Duration::from_millis(probe.fresh_failing_ms);
                    let both = kept.min(fresh);
                    // New sessions alone: only where nobody else gets one either.
                    let closed =
                        fresh >= window * BUSY_WINDOWS && from_here.is_blind(window * BUSY_WINDOWS);
                    match (both.is_zero(), closed) {
                        (false, false) => Some(Word::Hangs(both)),
                        (_, true) => Some(Word::Hangs(fresh)),
                        (true, false) => None,
                    }
                }
                ProcessState::Starting | ProcessState::NoData | ProcessState::Unusable => None,
            },
        }
    }

    /// Whether a server has answered neither this orchestrator nor another region's agent for a
    /// whole detection window.
    pub(super) fn is_blind_to(&self, now: &Now, region: &Region, node: &NodeId) -> bool {
        let window = self.window();
        self.reach.sight(now.moment, node).is_blind(window)
            && self.sight_from(now, region, node).is_blind(window)
    }

    /// How a server looks to another region's agent.
    fn sight_from(&self, now: &Now, region: &Region, node: &NodeId) -> Sight {
        let silence = self.window();
        if self.seen.agent_silent(region, now.moment, silence).is_some() {
            return Sight::Unknown;
        }
        let report = self.seen.region(region).and_then(|seen| seen.report.as_ref());
        match report.and_then(|(report, at)| Some((report.peers.get(node)?, at))) {
            Some((reach, at)) => Sight::told(*reach, now.moment.since(*at)),
            None => Sight::Unknown,
        }
    }
}
