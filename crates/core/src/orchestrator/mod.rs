//! The orchestrator's decisions: one function, [`Orchestrator::step`], from what happened to what
//! should be done.
//!
//! ```text
//!   reports, outcomes,              ┌ requests ┐   ┌ decider table ┐
//!   store answers, requests ──────► │          ├──►│ (repairs)     ├──► effects: store, send, note
//!                                   └ executor ┘   └───────────────┘
//! ```
//!
//! Commands carry the revision of the record that is known to be stored, so nothing is sent while
//! a change of the record is under way. The core asks for one change at a time.

mod activity;
mod automatic;
mod change;
mod decider;
mod executor;
mod input;
mod lag;
mod leases;
mod orders;
mod output;
mod protection;
mod reach;
mod requests;
mod routes;
mod seat;
mod seen;
mod settings;
mod timing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::guard::Guard;
use crate::observe::{MovePolicy, NodeView, PostgresView};
use crate::order::{Order, Refusal};
use crate::record::{ClaimPhase, OperationKind, Record};
use crate::steps::StepKey;
use crate::words::{
    DatastoreName, Heard, Moment, NodeId, OperationId, Region, Revision, Stamp, StepNumber,
};

use automatic::Watch;
use reach::Reaches;
use seat::Peers;

pub use activity::{
    Activity, Ended, Facts, Progress, Sent, StepState, Verdict, back_plan, forward_plan, plan,
};
pub use automatic::{AUTOMATIC, AutomaticRow, Cause, Doubt, NearMiss, Reaction, Word};
pub use change::{Change, adopted_record, apply, first_record};
pub use decider::{DECIDER, DeciderRow, Decision};
pub use input::{Asked, Consent, Input, Now, Request, StoreAnswer};
pub use lag::Lag;
pub use output::{Effect, Note, Noted};
pub use protection::{Covered, PROTECTION, ProtectionRow, ProtectionVerdict};
pub use reach::Sight;
pub use seat::{PeerReport, SEAT, SeatRow, Seating, Takes, Votes};
pub use seen::{Answering, RegionSeen, Seen};
pub use settings::{Limits, Seats, Settings};
pub use timing::{Durations, FalseAlarm, Quantiles, Timing};

/// Everything an orchestrator remembers between two inputs.
#[derive(Debug, Clone)]
pub struct Orchestrator {
    settings: Settings,
    driver: String,
    record: Option<Record>,
    seen: Seen,
    lag: Lag,
    activities: BTreeMap<OperationId, Activity>,
    wanted: VecDeque<Wanted>,
    storing: Option<Storing>,
    next_step: (Revision, StepNumber),
    frozen: Option<String>,
    backoff: BTreeMap<DatastoreName, Backoff>,
    /// Regions that have not been looked at since a datastore was repaired.
    unseen: BTreeMap<DatastoreName, BTreeSet<Region>>,
    not_following_since: BTreeMap<NodeId, Moment>,
    floors_at: Moment,
    explained: BTreeMap<String, &'static str>,
    reach: Reaches,
    peers: Peers,
    watch: Watch,
    /// When the store last said what it holds: a read that began before that says less.
    settled_at: Moment,
    /// When it was last read, where others write to it too.
    read_at: Moment,
    /// When the newest swap was sent to the store: from then on the old side is granted nothing.
    swap_sent: Option<Moment>,
    timing: Timing,
    stepped_at: Moment,
    /// When this run itself had last stood still for longer than an agent may be silent.
    stood_still: Option<Moment>,
}

/// A change of the record that waits its turn.
#[derive(Debug, Clone)]
struct Wanted {
    change: Change,
    since: Moment,
    by: Option<(OperationId, StepKey)>,
}

impl Wanted {
    fn is_drive(&self) -> bool {
        matches!(self.change, Change::Drive { .. })
    }
}

/// A change of the record that is being stored.
#[derive(Debug, Clone)]
struct Storing {
    wanted: Wanted,
    next: Record,
}

/// How long to leave a datastore alone after a repair that did not work.
#[derive(Debug, Clone, Copy, Default)]
struct Backoff {
    failures: u32,
    not_before: Moment,
}

impl Orchestrator {
    /// An orchestrator that knows nothing yet. `driver` names this run and no other.
    pub fn new(settings: Settings, driver: String) -> Self {
        Orchestrator {
            settings,
            driver,
            record: None,
            seen: Seen::default(),
            lag: Lag::default(),
            activities: BTreeMap::new(),
            wanted: VecDeque::new(),
            storing: None,
            next_step: (Revision::FIRST, StepNumber::FIRST),
            frozen: None,
            backoff: BTreeMap::new(),
            unseen: BTreeMap::new(),
            not_following_since: BTreeMap::new(),
            floors_at: Moment::ZERO,
            explained: BTreeMap::new(),
            reach: Reaches::default(),
            peers: Peers::default(),
            watch: Watch::default(),
            settled_at: Moment::ZERO,
            read_at: Moment::ZERO,
            swap_sent: None,
            timing: Timing::default(),
            stepped_at: Moment::ZERO,
            stood_still: None,
        }
    }

    /// The record that is known to be stored.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The newest reports.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How far standbys are behind, in time.
    pub fn lag(&self) -> &Lag {
        &self.lag
    }

    /// How long answers take.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The detection window in force: what is set, but never shorter than all but one round trip of
    /// a thousand.
    pub fn window(&self) -> Duration {
        self.timing.window(self.settings.limits.silence)
    }

    /// An agent's answer took so long. One that came too late and is not of the writer's region is
    /// not counted: that region was silent and was left for it, or it is one whose silence moves
    /// nothing. Counted, an outage that was rightly acted on would make the next one longer.
    fn timed(&mut self, now: Moment, region: Region, took: Duration) {
        if self.stood_still.is_some_and(|until| now.since(until) < took) {
            // What it measured is how long it was frozen itself.
            return;
        }
        let writer = self.record.as_ref().map(|record| &record.writer);
        if took <= self.window() || writer == Some(&region) {
            self.timing.polled(region, took);
        }
    }

    /// The operations under way.
    pub fn activities(&self) -> impl Iterator<Item = &Activity> {
        self.activities.values()
    }

    /// Why nothing at all is done at the moment (R2).
    pub fn frozen(&self) -> Option<&str> {
        self.frozen.as_deref()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Decide with these limits from now on; what is under way keeps the time it was given.
    pub fn set_limits(&mut self, limits: Limits) {
        self.settings.limits = limits;
    }

    /// Take in what happened and say what should be done.
    pub fn step(&mut self, now: &Now, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        if now.moment.since(self.stepped_at) >= self.settings.limits.silence {
            self.stood_still = Some(now.moment);
        }
        self.stepped_at = now.moment;
        match input {
            Input::Loaded(record) => self.loaded(now, record, &mut out),
            Input::Read { record, begun } => self.read(now, record, begun, &mut out),
            Input::Peer(report) => self.peers.heard(now.moment, report),
            Input::Stored(answer) => self.stored(now, answer, &mut out),
            Input::Report(report) => self.reported(now, report, &mut out),
            Input::Missed { region, why } => {
                let seen = self.seen.regions.entry(region).or_default();
                seen.missed = Some(why);
                seen.misses = seen.misses.saturating_add(1);
            }
            Input::Outcome { operation, key, stamp, outcome } => {
                self.outcome(now, &operation, &key, &stamp, outcome, &mut out);
            }
            Input::Asked(request) => self.asked(now, request, &mut out),
            Input::Knocked { node, knock } => self.reach.knocked(now.moment, node, knock),
            Input::RoundTrip { region, took } => {
                self.timed(now.moment, region, took);
                // The report that came with it is an input of its own.
                return out;
            }
            Input::Tick => {}
        }
        self.take_seat(now, &mut out);
        if self.is_driving() {
            // Before anything is decided: leases of the run before are waited out from here on.
            self.watch.begin(now.moment);
            if self.storing.is_none() && self.wanted.is_empty() {
                self.resume(now, &mut out);
            }
            self.advance_all(now, &mut out);
            // One fresh id per input: a repair waits for the next.
            if !self.watch_writer(now, &mut out) {
                self.decide(now, &mut out);
            }
            self.raise_floors(now);
            self.advance_all(now, &mut out);
        }
        self.store_next(now, &mut out);
        out
    }

    /// Whether this run may act: it is the record's driver, and nothing is frozen.
    pub fn is_driving(&self) -> bool {
        self.frozen.is_none()
            && self.record.as_ref().is_some_and(|record| record.driver == self.driver)
    }

    /// Whether this run acts by a record.
    pub fn acts_by(&self, record: &Record) -> bool {
        record.driver == self.driver
    }

    fn loaded(&mut self, now: &Now, record: Record, out: &mut Vec<Effect>) {
        if self.went_back(&record, out) {
            return;
        }
        let settled = self.storing.take();
        self.settled_at = now.moment;
        let driving = record.driver == self.driver;
        self.record = Some(record);
        let heard: Vec<(Region, Heard)> = self
            .seen
            .regions
            .iter()
            .filter_map(|(region, seen)| Some((region.clone(), seen.heard.clone()?)))
            .collect();
        for (region, heard) in &heard {
            self.compare(region, heard, out);
        }
        if let Some(storing) = settled {
            // A compare-and-swap whose answer was lost: the record itself says whether it is in.
            let stored = self.record.as_ref() == Some(&storing.next);
            if stored {
                self.change_is_stored(now, storing.wanted, out);
                return;
            }
            if storing.wanted.is_drive() {
                return;
            }
            if !driving {
                // It may have been stored and gone on from since: that is the other run's to know.
                self.depose();
                return;
            }
            if let (Change::Claim(_), Some((operation, key))) =
                (&storing.wanted.change, &storing.wanted.by)
                && now.moment.since(storing.wanted.since) > self.settings.limits.command
            {
                // What was asked for, or seen, is no longer so for sure; and nothing was touched.
                let refusal = store_unavailable("it has been away for too long");
                let (operation, key) = (operation.clone(), key.clone());
                self.settle(now, &operation, &key, Verdict::Refused { refusal }, out);
                return;
            }
            self.wanted.push_front(storing.wanted);
        }
    }

    /// For how long the store has said nothing, where others write to it too.
    fn store_silent_for(&self, now: &Now) -> Duration {
        match self.settings.seats.is_shared() {
            true => now.moment.since(self.settled_at.max(self.read_at)),
            false => Duration::ZERO,
        }
    }

    /// Why nothing is begun, if the store has said nothing for long.
    fn store_is_silent(&self, now: &Now) -> Option<Refusal> {
        let silent = self.store_silent_for(now);
        let long = silent > self.settings.limits.silence * 2;
        long.then(|| {
            store_unavailable(&format!("it has said nothing for {} ms", silent.as_millis()))
        })
    }

    /// The record as it was after `begun`: how a store that others write to is followed.
    fn read(&mut self, now: &Now, record: Record, begun: Moment, out: &mut Vec<Effect>) {
        self.read_at = now.moment;
        if self.frozen.is_some() || self.storing.is_some() || begun < self.settled_at {
            // What is being stored will be answered; what was stored since is newer than this.
            return;
        }
        if self.went_back(&record, out) {
            return;
        }
        let drove = self.is_driving();
        self.record = Some(record);
        if drove && !self.is_driving() {
            self.depose();
        }
        let reported: Vec<(Region, Heard)> = self
            .seen
            .regions
            .iter()
            .filter(|(_, seen)| seen.report.as_ref().is_some_and(|(_, at)| *at <= begun))
            .filter_map(|(region, seen)| Some((region.clone(), seen.heard.clone()?)))
            .collect();
        for (region, heard) in &reported {
            self.freeze_if_older(region, heard, out);
        }
    }

    /// Whether the store holds less than this run knows to have been in it (R2).
    fn went_back(&mut self, found: &Record, out: &mut Vec<Effect>) -> bool {
        let Some(known) = self.record.as_ref().map(Record::heard) else { return false };
        let found = found.heard();
        let back = found.lineage == known.lineage && !found.covers(&known);
        if !back || !Guard::StoreGoesOnlyForward.holds() {
            return false;
        }
        self.frozen = Some(format!(
            "this orchestrator has seen {known} in the store, which now holds {found}: it was \
             restored from a copy. Nothing is done until `tier0 authority adopt`"
        ));
        out.push(Effect::Explain {
            row: "F01",
            subject: "the store".to_owned(),
            sentence: "the store is older than what has been heard: frozen",
        });
        true
    }

    fn store_next(&mut self, now: &Now, out: &mut Vec<Effect>) {
        if self.storing.is_some() || self.frozen.is_some() {
            return;
        }
        let Some(record) = self.record.clone() else { return };
        while let Some(wanted) = self.wanted.pop_front() {
            match change::apply(&record, &wanted.change, now.wall) {
                Ok(next) => {
                    out.push(Effect::Store {
                        expected: record.heard(),
                        next: Box::new(next.clone()),
                    });
                    if matches!(wanted.change, Change::Swap { .. }) {
                        self.swap_sent = Some(now.moment);
                    }
                    self.storing = Some(Storing { wanted, next });
                    return;
                }
                Err(refusal) => {
                    if let Some((operation, key)) = wanted.by {
                        self.settle(now, &operation, &key, Verdict::Refused { refusal }, out);
                        self.advance_all(now, out);
                    }
                }
            }
        }
    }

    fn stored(&mut self, now: &Now, answer: StoreAnswer, out: &mut Vec<Effect>) {
        match answer {
            StoreAnswer::Stored => {
                let Some(storing) = self.storing.take() else { return };
                self.record = Some(storing.next);
                self.settled_at = now.moment;
                self.change_is_stored(now, storing.wanted, out);
            }
            StoreAnswer::Lost { current } => {
                if self.went_back(&current, out) {
                    return;
                }
                let lost = self.storing.take();
                self.settled_at = now.moment;
                let deposed = current.driver != self.driver;
                self.record = Some(*current);
                if deposed && !lost.as_ref().is_some_and(|lost| lost.wanted.is_drive()) {
                    self.depose();
                    return;
                }
                // Who takes the seat is decided anew: somebody else may just have taken it.
                if let Some(lost) = lost.filter(|lost| !lost.wanted.is_drive()) {
                    self.wanted.push_front(lost.wanted);
                }
            }
            StoreAnswer::Unknown { .. } => out.push(Effect::Load),
        }
    }

    /// Another run acts now. This one leaves everything to it (R4): it watches, or where nobody else
    /// was to be there, it ends.
    fn depose(&mut self) {
        self.activities.clear();
        self.wanted.clear();
        if self.settings.seats.is_shared() {
            self.watch.end();
            self.swap_sent = None;
            self.backoff.clear();
            self.unseen.clear();
            return;
        }
        self.frozen = Some("another orchestrator has taken over; this one acts no more".to_owned());
    }

    fn change_is_stored(&mut self, now: &Now, wanted: Wanted, out: &mut Vec<Effect>) {
        let Some((operation, key)) = wanted.by else { return };
        match &wanted.change {
            Change::Swap { .. } => self.moved(now, &operation, out),
            Change::Number { datastore } => self.numbered(&operation, datastore),
            Change::Drive { .. }
            | Change::Claim(_)
            | Change::Abort { .. }
            | Change::Finish(_)
            | Change::Join { .. }
            | Change::Leave { .. }
            | Change::Expose { .. }
            | Change::Floors { .. }
            | Change::Arm(_)
            | Change::Born { .. } => {}
        }
        self.settle(now, &operation, &key, Verdict::Done { learnt: None }, out);
    }

    /// Go on with, or undo, the operation that an earlier run left in the record; or whose place
    /// another one had taken that was undone.
    fn resume(&mut self, now: &Now, out: &mut Vec<Effect>) {
        let claim = self.record.as_ref().and_then(|record| record.claim.as_ref());
        let left = claim.filter(|claim| !self.activities.contains_key(&claim.operation));
        let Some(claim) = left.cloned() else { return };
        let steps = match claim.phase {
            ClaimPhase::Before if !Guard::ResumesBackwards.holds() => {
                forward_plan(&self.settings.shape)
            }
            ClaimPhase::Before | ClaimPhase::Aborting => back_plan(&self.settings.shape),
            ClaimPhase::After => forward_plan(&self.settings.shape),
        };
        let mut activity = Activity::from_claim(&claim, Activity::waiting(steps), now);
        if claim.phase != ClaimPhase::After {
            activity.abort = Some(Refusal::new(
                "orchestrator-restarted",
                "the orchestrator ended before the point of no return",
            ));
        }
        if claim.phase == ClaimPhase::Aborting {
            activity.skip(now, |key| key.step == crate::steps::Step::RecordAbort, "already stored");
        }
        out.push(activity.note(
            now,
            None,
            None,
            Noted::Remark {
                sentence: format!("taken over by {} in phase {:?}", self.driver, claim.phase),
            },
        ));
        self.activities.insert(claim.operation.clone(), activity);
    }

    fn reported(&mut self, now: &Now, report: crate::observe::AgentReport, out: &mut Vec<Effect>) {
        let region = report.region.clone();
        if let Some(heard) = &report.heard {
            self.compare(&region, heard, out);
        }
        let window = self.window();
        let seen = self.seen.regions.entry(region).or_default();
        if let Some((old, _)) = &seen.report {
            // Two connections: a late answer must not replace a newer one.
            if old.run == report.run && old.sequence > report.sequence {
                seen.missed = None;
                seen.misses = 0;
                return;
            }
        }
        if report.heard.is_some() {
            seen.heard = report.heard.clone();
        }
        let silent = seen.age(now.moment).unwrap_or_default();
        let epoch = self.record.as_ref().map(|record| record.epoch);
        self.timing.heard(now.moment, &report.region, &report.run, epoch, silent);
        if silent > window {
            seen.again = Some(now.moment);
        }
        for (node, view) in &report.nodes {
            let NodeView::Postgres(PostgresView { commits: Some(probe), .. }) = &view.view else {
                continue;
            };
            if let (Some(kept), Some(fresh)) = (probe.kept_took_ms, probe.fresh_took_ms) {
                self.timing.probed(node, Duration::from_millis(kept.max(fresh)));
            }
        }
        seen.missed = None;
        seen.misses = 0;
        seen.clock_ahead_ms = report.host.wall.map(|wall| wall.0 - now.wall.0);
        for unseen in self.unseen.values_mut() {
            unseen.remove(&report.region);
        }
        seen.report = Some((report, now.moment));
        self.note_flushed(now);
        self.note_following(now);
        self.note_living();
    }

    /// A store that went back in time, or began anew, is older than what an agent has heard (R2). An
    /// agent may know of what another orchestrator has stored a moment ago: with a store that is
    /// shared, only what is read after the agent's report says more.
    fn compare(&mut self, region: &Region, heard: &Heard, out: &mut Vec<Effect>) {
        if !self.settings.seats.is_shared() {
            self.freeze_if_older(region, heard, out);
        }
    }

    fn freeze_if_older(&mut self, region: &Region, heard: &Heard, out: &mut Vec<Effect>) {
        let Some(mine) = self.record.as_ref().map(Record::heard) else { return };
        let ahead = heard.lineage == mine.lineage
            && (heard.epoch, heard.revision) > (mine.epoch, mine.revision)
            && self.storing.is_none();
        let foreign = heard.lineage != mine.lineage;
        let old = (ahead || foreign) && Guard::OldRecordFreezes.holds();
        if !old || self.frozen.is_some() {
            return;
        }
        self.frozen = Some(format!(
            "the agent of {region} has heard of {heard} of lineage {}, the store holds {mine} of \
             lineage {}: the store was lost or restored from a copy. Nothing is done until `tier0 \
             authority adopt`",
            heard.lineage, mine.lineage
        ));
        out.push(Effect::Explain {
            row: "F01",
            subject: region.to_string(),
            sentence: "the store is older than what an agent has heard: frozen",
        });
    }

    /// The stamp of the next command.
    fn stamp(&mut self) -> Option<Stamp> {
        let record = self.record.as_ref()?;
        let step =
            if self.next_step.0 == record.revision { self.next_step.1 } else { StepNumber::FIRST };
        self.next_step = (record.revision, step.next());
        Some(Stamp {
            lineage: record.lineage.clone(),
            epoch: record.epoch,
            revision: record.revision,
            step,
        })
    }

    /// What `--plan` prints: every step in order, with what it would order.
    pub fn plan_of_move(&self) -> Vec<(StepKey, &'static str)> {
        sentences(activity::plan(&self.settings.shape, OperationKind::Switchover, None))
    }

    /// The same for a node whose data directory is made anew.
    pub fn plan_of_rebuild(&self, node: &NodeId) -> Vec<(StepKey, &'static str)> {
        sentences(activity::plan(&self.settings.shape, OperationKind::Rebuild, Some(node)))
    }
}

fn store_unavailable(why: &str) -> Refusal {
    let sentence = format!(
        "the store of the record cannot be written ({why}): nothing is moved, and writes go on"
    );
    Refusal::new("store-unavailable", sentence)
}

fn sentences(keys: Vec<StepKey>) -> Vec<(StepKey, &'static str)> {
    let sentence = |key: &StepKey| crate::steps::row(key.step).sentence;
    keys.into_iter().map(|key| (key.clone(), sentence(&key))).collect()
}

/// What beginning a step comes to.
#[derive(Debug)]
enum Begin {
    /// It is over at once.
    Settle(Verdict),
    /// A command.
    Send { node: NodeId, order: Order, limit: Duration },
    /// A change of the record.
    Change(Change),
    /// Not yet: look again at the next input.
    NotYet,
}
