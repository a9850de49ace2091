//! Carrying out an operation: begin what may begin, settle what ended, answer trouble by the row.

use crate::guard::{self, Guard};
use crate::observe::MovePolicy;
use crate::order::{Command, Outcome, Refusal};
use crate::record::{Claim, ClaimPhase, DatastoreKind, OperationKind};
use crate::steps::{Scope, Side, Step, StepKey, Trouble, row};
use crate::words::{DatastoreName, Moment, NodeId, OperationId, Stamp, SyncName};

use super::activity::{Activity, Ended, Facts, Progress, Sent, StepState, Verdict, back_plan};
use super::input::{Consent, Now};
use super::output::{Effect, Note, Noted};
use super::{Begin, Orchestrator, Wanted};

/// How often a step that can only go forward is tried before its datastore becomes an exception.
const FORWARD_ATTEMPTS: u32 = 3;

/// How long a step waits before it is tried again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

/// How long an exception waits before it is tried again in the background.
const RETRY_EXCEPTION_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

impl Orchestrator {
    /// Advance every operation until nothing more can begin.
    pub(super) fn advance_all(&mut self, now: &Now, out: &mut Vec<Effect>) {
        let ids: Vec<OperationId> = self.activities.keys().cloned().collect();
        for id in ids {
            while self.advance(now, &id, out) {}
            self.conclude(now, &id, out);
        }
    }

    /// Begin or settle one step of an operation; whether anything happened.
    fn advance(&mut self, now: &Now, id: &OperationId, out: &mut Vec<Effect>) -> bool {
        let Some(activity) = self.activities.get(id) else { return false };
        if let Some((key, why)) = self.given_up(now, activity) {
            self.settle(now, id, &key, Verdict::Unknown { why }, out);
            return true;
        }
        let mut not_yet = Vec::new();
        for index in 0..activity.steps.len() {
            let Progress::Waiting { not_before } = activity.steps[index].progress else { continue };
            let key = activity.steps[index].key.clone();
            if not_before > now.moment || !activity.may_begin(&key) {
                continue;
            }
            match self.begin(now, activity, &key) {
                Begin::NotYet => not_yet.push(key),
                // A command carries the stored record's revision: none is sent meanwhile.
                Begin::Send { .. } if self.is_changing_record() => {}
                Begin::Send { node, order, limit } => {
                    let Some(stamp) = self.stamp() else { return false };
                    let command = Command {
                        node: node.clone(),
                        stamp: stamp.clone(),
                        step: key.step,
                        order,
                        limit_ms: limit.as_millis() as u64,
                    };
                    self.begins(now, id, &key, Some(Sent { node, stamp }), out);
                    let command = Box::new(command);
                    out.push(Effect::Send { operation: id.clone(), key, command });
                    return true;
                }
                Begin::Change(change) => {
                    if key.step == Step::Claim {
                        self.end_repairs(now, id, out);
                    }
                    self.begins(now, id, &key, None, out);
                    self.wanted.push_back(Wanted {
                        change,
                        since: now.moment,
                        by: Some((id.clone(), key)),
                    });
                    return true;
                }
                Begin::Settle(verdict) => {
                    self.begins(now, id, &key, None, out);
                    self.settle(now, id, &key, verdict, out);
                    return true;
                }
            }
        }
        if let Some(activity) = self.activities.get_mut(id) {
            for key in not_yet {
                activity.note_waiting(&key, now.moment);
            }
        }
        false
    }

    fn is_changing_record(&self) -> bool {
        let changing = self.storing.is_some() || !self.wanted.is_empty();
        changing && Guard::SendsOnlyWhenStored.holds()
    }

    /// A step on the old side or on a route whose agent fell silent while it ran: nobody waits for
    /// it longer than the old side is given to cooperate.
    fn given_up(&self, now: &Now, activity: &Activity) -> Option<(StepKey, String)> {
        activity.steps.iter().find_map(|state| {
            let Progress::Running { sent: Some(sent), .. } = &state.progress else { return None };
            if !matches!(row(state.key.step).side, Side::Old | Side::Route) {
                return None;
            }
            let most = self.patience(state.key.step);
            let why = self.seen.agent_silent(sent.node.region(), now.moment, most)?;
            Some((state.key.clone(), why))
        })
    }

    /// How long the old side of a step may be silent before the step goes on without it. A
    /// PostgreSQL member holds everything without the old side, so little is waited for. A Redis
    /// replica does not: a stall of the old side that is taken for its death would cost what it
    /// acknowledged since, so it gets as long as any agent.
    pub(super) fn patience(&self, step: Step) -> std::time::Duration {
        match row(step).scope {
            Scope::Each(DatastoreKind::Redis) => self.settings.limits.silence,
            Scope::Each(DatastoreKind::Postgres) | Scope::Stack | Scope::EachRoute => {
                self.settings.limits.cooperation
            }
        }
    }

    fn begins(
        &mut self,
        now: &Now,
        id: &OperationId,
        key: &StepKey,
        sent: Option<Sent>,
        out: &mut Vec<Effect>,
    ) {
        let Some(activity) = self.activities.get_mut(id) else { return };
        let node = sent.as_ref().map(|sent| sent.node.clone());
        if let Some(state) = activity.step_mut(key) {
            let since = match state.progress {
                Progress::Waiting { .. } | Progress::Settled { .. } => now.moment,
                Progress::Running { since, .. } => since,
            };
            state.progress = Progress::Running { since, sent };
            state.attempts += 1;
        }
        if node.is_some() {
            let sentence = row(key.step).sentence.to_owned();
            out.push(activity.note(now, Some(key), node, Noted::Begins { sentence }));
        }
    }

    /// A command came to an end.
    pub(super) fn outcome(
        &mut self,
        now: &Now,
        id: &OperationId,
        key: &StepKey,
        stamp: &Stamp,
        outcome: Outcome,
        out: &mut Vec<Effect>,
    ) {
        let Some(activity) = self.activities.get_mut(id) else { return };
        let current = activity.steps.iter().any(|state| {
            state.key == *key
                && matches!(&state.progress, Progress::Running { sent: Some(sent), .. }
                    if sent.stamp == *stamp)
        });
        if !current {
            return;
        }
        if let (Outcome::Done { fact }, Some(name)) = (&outcome, &key.datastore) {
            activity.facts.entry(name.clone()).or_default().learn(key.step, fact);
        }
        // A command that changes nothing is not kept by the agent, and so proves nothing.
        let looked = matches!(
            key.step,
            Step::Drain | Step::Receive | Step::AskMaster | Step::CatchUp | Step::CatchUpFenced
        );
        let node = activity.sent_to(key).filter(|_| !looked);
        if let (Some(node), Outcome::Done { .. } | Outcome::Failed { .. }) = (&node, &outcome) {
            // Whoever obeyed a stamp has, durably, heard of its record.
            let heard = crate::words::Heard {
                lineage: stamp.lineage.clone(),
                epoch: stamp.epoch,
                revision: stamp.revision,
            };
            let seen = self.seen.regions.entry(node.region().clone()).or_default();
            if seen.heard.as_ref().is_none_or(|known| heard.covers(known)) {
                seen.heard = Some(heard);
            }
        }
        self.settle(now, id, key, Verdict::from(&outcome), out);
    }

    /// A step ended: keep the verdict, and answer trouble as its row says.
    pub(super) fn settle(
        &mut self,
        now: &Now,
        id: &OperationId,
        key: &StepKey,
        verdict: Verdict,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut activity) = self.activities.remove(id) else { return };
        let sent_to = activity.sent_to(key);
        out.push(activity.note(
            now,
            Some(key),
            sent_to,
            Noted::Ends { sentence: verdict.sentence() },
        ));
        if let Some(state) = activity.step_mut(key) {
            let from = match &state.progress {
                Progress::Running { since, .. } => *since,
                Progress::Waiting { .. } => now.moment,
                Progress::Settled { from, .. } => *from,
            };
            state.progress = Progress::Settled { from, to: now.moment, verdict: verdict.clone() };
        }
        if key.step == Step::HealthCheck && verdict.is_good() {
            // The check may have waited, and a standby joined meanwhile.
            activity.facts = self.facts_of_move(&activity.from, &activity.target);
            activity.accepted_risks = self.accepted_risks(now, &activity.target, activity.consent);
        }
        if !verdict.is_good() {
            self.trouble(now, &mut activity, key, &verdict, out);
        } else if let (Verdict::Done { .. }, Some(name)) = (&verdict, &key.datastore) {
            // A step that was skipped because its datastore stays closed proves nothing.
            activity.opened(name, key.step);
        }
        self.activities.insert(id.clone(), activity);
    }

    fn trouble(
        &mut self,
        now: &Now,
        activity: &mut Activity,
        key: &StepKey,
        verdict: &Verdict,
        out: &mut Vec<Effect>,
    ) {
        let why = format!("{key} {}", verdict.sentence());
        let refusal = match verdict {
            Verdict::Refused { refusal } => refusal.clone(),
            Verdict::Done { .. }
            | Verdict::Skipped { .. }
            | Verdict::Failed { .. }
            | Verdict::Unknown { .. } => Refusal::new(&format!("{}-failed", key.step), why.clone()),
        };
        match row(key.step).trouble {
            Trouble::GoOn => {}
            Trouble::Refuse => {
                activity.abort = Some(refusal);
                activity.skip(now, |_| true, "the operation was refused");
            }
            Trouble::Abort
                if activity.consent != Consent::None
                    && matches!(key.step, Step::Receive | Step::CatchUp | Step::CatchUpFenced) =>
            {
                let sentence = format!("loss was accepted: {why}");
                out.push(activity.note(now, Some(key), None, Noted::Remark { sentence }));
            }
            Trouble::Abort => self.begin_abort(now, activity, refusal),
            Trouble::WithoutOldSide => {
                let Some(name) = &key.datastore else { return };
                // A Redis that answers "no" is alive, and one that was paused a moment ago most
                // likely is: its writes are not left behind.
                let alive = row(key.step).scope == Scope::Each(DatastoreKind::Redis)
                    && (!matches!(verdict, Verdict::Unknown { .. }) || key.step == Step::Fence)
                    && activity.consent == Consent::None;
                let without = self.may_go_without(activity, name) && !alive;
                if activity.phase == ClaimPhase::After || without {
                    out.push(activity.note(
                        now,
                        Some(key),
                        None,
                        Noted::Remark { sentence: format!("goes on without the old side: {why}") },
                    ));
                    activity.without_old.insert(name.clone(), why);
                } else {
                    self.begin_abort(now, activity, refusal);
                }
            }
            Trouble::Forward if is_short_of_stop(verdict) => {
                // The last record of the old primary never arrived: its sender was gone before. A
                // member holds every acknowledged write without it, and the old side rejoins by
                // rewind; waiting for it would never end.
                let Some(name) = &key.datastore else { return };
                activity.facts.entry(name.clone()).or_default().stopped_at = None;
                if let Some(state) = activity.step_mut(key) {
                    state.progress = Progress::Waiting { not_before: now.moment };
                }
                let sentence = format!("goes on without the old side's last record: {why}");
                out.push(activity.note(now, Some(key), None, Noted::Remark { sentence }));
            }
            Trouble::Forward => {
                let answered = activity.answered;
                let Some(state) = activity.step_mut(key) else { return };
                let refused = matches!(verdict, Verdict::Refused { .. });
                if state.attempts < FORWARD_ATTEMPTS && !refused && !answered {
                    let not_before = now.moment.after(RETRY_AFTER);
                    state.progress = Progress::Waiting { not_before };
                } else if let Some(name) = &key.datastore {
                    activity.exceptions.insert(name.clone(), why);
                }
            }
            Trouble::GiveUp => {
                activity.abort = Some(refusal);
                activity.skip(now, |_| true, "an earlier step did not work");
            }
        }
    }

    /// Turn round: what has not begun is skipped, and the steps of the way back are appended.
    fn begin_abort(&mut self, now: &Now, activity: &mut Activity, refusal: Refusal) {
        if activity.abort.is_some() {
            return;
        }
        activity.abort = Some(refusal);
        activity.skip(now, |_| true, "the operation is being aborted");
        activity.steps.retain(|state| state.key.step != Step::Finish);
        let mut back = Activity::waiting(back_plan(&self.settings.shape));
        back.retain(|state| match &state.key.datastore {
            Some(name) if state.key.step == Step::Unfence => {
                activity.was_sent(Step::Pause, name) || activity.was_sent(Step::Fence, name)
            }
            Some(name) if state.key.step == Step::ResumeRoute => {
                activity.was_sent(Step::HoldRoute, name)
            }
            Some(_) | None => true,
        });
        activity.steps.extend(back);
        // A swap that was asked for and not yet sent must not overtake the abort.
        let id = activity.id.clone();
        self.wanted.retain(|wanted| wanted.by.as_ref().is_none_or(|(by, _)| *by != id));
    }

    /// The point of no return was passed.
    pub(super) fn moved(&mut self, now: &Now, id: &OperationId, out: &mut Vec<Effect>) {
        let Some(record) = &self.record else { return };
        let epoch = record.epoch;
        if let Some(activity) = self.activities.get_mut(id) {
            activity.phase = ClaimPhase::After;
            out.push(activity.note(now, None, None, Noted::PointOfNoReturn { epoch }));
        }
        self.not_following_since.clear();
        self.lag.forget();
    }

    /// A membership number was given out.
    pub(super) fn numbered(&mut self, id: &OperationId, datastore: &DatastoreName) {
        let number = self
            .record
            .as_ref()
            .and_then(|record| record.datastores.get(datastore))
            .map(|datastore| datastore.memberships);
        if let (Some(number), Some(activity)) = (number, self.activities.get_mut(id))
            && let Some(node) = activity.node.clone()
        {
            activity.facts.entry(datastore.clone()).or_default().joining =
                Some(SyncName::new(node, number));
        }
    }

    /// Answer an operation that is over, or that has only exceptions left to retry.
    fn conclude(&mut self, now: &Now, id: &OperationId, out: &mut Vec<Effect>) {
        let Some(activity) = self.activities.get_mut(id) else { return };
        let settled = activity.is_settled();
        let only_exceptions = !activity.exceptions.is_empty()
            && activity.steps.iter().all(|state| {
                matches!(state.progress, Progress::Settled { .. }) || state.key.step == Step::Finish
            });
        if !settled && !only_exceptions {
            return;
        }
        let ended = self.ended(id);
        let Some(activity) = self.activities.get_mut(id) else { return };
        if !activity.answered || settled {
            activity.answered = true;
            out.push(activity.note(
                now,
                None,
                None,
                Noted::Ended { sentence: format!("{ended:?}") },
            ));
            out.push(Effect::Ended { activity: Box::new(activity.clone()), ended: ended.clone() });
        }
        if settled {
            let activity = self.activities.remove(id);
            if let Some(cause) = activity.as_ref().and_then(|activity| activity.cause) {
                self.note_automatic(now, cause, &ended);
            }
            if let Some(name) =
                activity.and_then(|activity| activity.node).map(|node| node.datastore().clone())
            {
                self.note_repair(now, &name, &ended);
            }
        } else {
            activity.retry_exceptions(now.moment.after(RETRY_EXCEPTION_AFTER));
        }
    }

    fn ended(&self, id: &OperationId) -> Ended {
        let Some(activity) = self.activities.get(id) else { return Ended::Succeeded };
        if let Some(refusal) = &activity.abort {
            let refused = activity
                .steps
                .iter()
                .any(|state| {
                    row(state.key.step).trouble == Trouble::Refuse
                        && matches!(&state.progress, Progress::Settled { verdict, .. } if !verdict.is_good())
                });
            return if refused {
                Ended::Refused { refusal: refusal.clone() }
            } else if activity.kind.moves_writer() {
                Ended::Aborted { refusal: refusal.clone() }
            } else {
                Ended::Failed { why: refusal.to_string() }
            };
        }
        if activity.exceptions.is_empty() {
            return Ended::Succeeded;
        }
        let required = activity.exceptions.iter().find(|(name, _)| {
            self.settings.shape.datastores.get(*name).map(|datastore| datastore.policy)
                == Some(MovePolicy::Required)
        });
        match required {
            Some((name, why)) => Ended::Failed { why: format!("{name} stays closed: {why}") },
            None => Ended::WithExceptions { exceptions: activity.exceptions.clone() },
        }
    }
}

fn is_short_of_stop(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refused { refusal } if refusal.code == "short-of-stop")
}

impl Activity {
    /// An operation that an earlier run left in the record.
    pub(super) fn from_claim(claim: &Claim, steps: Vec<StepState>, now: &Now) -> Self {
        let mut facts: std::collections::BTreeMap<DatastoreName, Facts> = Default::default();
        for (name, undo) in &claim.undo {
            facts.entry(name.clone()).or_default().min_replicas_before =
                Some(undo.min_replicas_to_write);
        }
        for (name, member) in &claim.members {
            facts.entry(name.clone()).or_default().member = Some(member.clone());
        }
        let accepted_risks = match claim.accept_loss {
            true => vec!["how much it was went with the orchestrator that ended".to_owned()],
            false => Vec::new(),
        };
        Activity {
            id: claim.operation.clone(),
            kind: claim.kind,
            from: claim.from.clone(),
            target: claim.target.clone(),
            node: claim.node.clone(),
            by: claim.requested_by.clone(),
            reason: claim.reason.clone(),
            consent: match (claim.accept_loss, claim.old_side_is_down) {
                (true, true) => Consent::AcceptLossOldSideIsDown,
                (true, false) => Consent::AcceptLoss,
                (false, _) => Consent::None,
            },
            cause: None,
            arming: None,
            accepted: now.moment,
            accepted_wall: claim.accepted,
            phase: claim.phase,
            steps,
            facts,
            without_old: Default::default(),
            exceptions: Default::default(),
            accepted_risks,
            abort: None,
            answered: false,
            supersedes: claim.superseded.as_ref().map(|claim| claim.operation.clone()),
        }
    }

    /// Whether everything that must lie behind a step does.
    fn may_begin(&self, key: &StepKey) -> bool {
        let after = self.behind(key.step).filter(|before| guard::waits(key.step, *before));
        after.into_iter().all(|before| {
            self.steps.iter().all(|state| {
                let same = state.key.step == before
                    && (key.datastore.is_none()
                        || state.key.datastore.is_none()
                        || state.key.datastore == key.datastore)
                    && (key.route.is_none()
                        || state.key.route.is_none()
                        || state.key.route == key.route);
                !same || matches!(state.progress, Progress::Settled { .. })
            })
        })
    }

    /// What must lie behind a step: what its row says. In a failover clients wait already, and the
    /// vote of the Sentinels is no preparation any more: it is won once the new master serves. Where the
    /// writer was found dead, only the routes themselves wait for their being held.
    fn behind(&self, step: Step) -> impl Iterator<Item = Step> {
        let failover = self.kind == OperationKind::Failover;
        let earlier = (failover && step == Step::Vote).then_some(Step::PromoteRedis);
        let dead = self.cause.is_some();
        let later = move |before: &Step| match (step, before) {
            (Step::Hold, Step::Vote) => failover,
            (Step::Drain | Step::Pause, Step::HoldRoute) => dead,
            _ => false,
        };
        row(step).after.iter().copied().filter(move |before| !later(before)).chain(earlier)
    }

    pub(super) fn step_mut(&mut self, key: &StepKey) -> Option<&mut StepState> {
        self.steps.iter_mut().find(|state| state.key == *key)
    }

    fn sent_to(&self, key: &StepKey) -> Option<NodeId> {
        self.steps.iter().find(|state| state.key == *key).and_then(|state| match &state.progress {
            Progress::Running { sent: Some(sent), .. } => Some(sent.node.clone()),
            Progress::Running { sent: None, .. }
            | Progress::Waiting { .. }
            | Progress::Settled { .. } => None,
        })
    }

    /// Settle as skipped what has not begun.
    pub(super) fn skip(&mut self, now: &Now, which: impl Fn(&StepKey) -> bool, why: &str) {
        for state in &mut self.steps {
            if matches!(state.progress, Progress::Waiting { .. }) && which(&state.key) {
                state.progress = Progress::Settled {
                    from: now.moment,
                    to: now.moment,
                    verdict: Verdict::Skipped { why: why.to_owned() },
                };
            }
        }
    }

    /// When a step that may begin was first found to have to wait.
    pub(super) fn waiting_since(&self, step: Step) -> Moment {
        self.steps
            .iter()
            .find(|state| state.key.step == step)
            .map(|state| match state.progress {
                Progress::Waiting { not_before } if not_before > Moment::ZERO => not_before,
                Progress::Waiting { .. } => Moment::from_micros(u64::MAX),
                Progress::Running { since, .. } => since,
                Progress::Settled { from, .. } => from,
            })
            .unwrap_or_default()
    }

    fn note_waiting(&mut self, key: &StepKey, moment: Moment) {
        if let Some(state) = self.step_mut(key)
            && let Progress::Waiting { not_before } = &mut state.progress
            && *not_before == Moment::ZERO
        {
            *not_before = moment;
        }
    }

    /// A datastore that was an exception works after all.
    fn opened(&mut self, name: &DatastoreName, step: Step) {
        if matches!(step, Step::Validate | Step::ValidateRedis) && self.answered {
            self.exceptions.remove(name);
        }
    }

    /// Try the forward steps of exceptions again.
    fn retry_exceptions(&mut self, not_before: Moment) {
        let names: Vec<DatastoreName> = self.exceptions.keys().cloned().collect();
        self.exceptions.clear();
        self.without_old.retain(|name, _| !names.contains(name));
        for state in &mut self.steps {
            let of_exception =
                state.key.datastore.as_ref().is_some_and(|name| names.contains(name));
            // A stop that was skipped because nobody answered may be what the promotion lacks.
            let bad = matches!(&state.progress, Progress::Settled { verdict, .. }
                if !verdict.is_good()
                    || matches!(verdict, Verdict::Skipped { why }
                        if why.contains("stays closed") || state.key.step == Step::Stop));
            let forward = matches!(row(state.key.step).trouble, Trouble::Forward | Trouble::GoOn)
                && !row(state.key.step).after.is_empty()
                && !matches!(state.key.step, Step::Checkpoint | Step::Vote | Step::HoldRoute)
                || state.key.step == Step::Stop;
            // A server that was promoted and ended since is started by being promoted again; what
            // comes after it on the same node is done again as well, in its order.
            let again = matches!(
                state.key.step,
                Step::Promote
                    | Step::Validate
                    | Step::PromoteRedis
                    | Step::Announce
                    | Step::ValidateRedis
            );
            if of_exception && (bad && forward || again) {
                state.progress = Progress::Waiting { not_before };
            }
        }
    }

    /// A line of the journal.
    pub(super) fn note(
        &self,
        now: &Now,
        key: Option<&StepKey>,
        node: Option<NodeId>,
        what: Noted,
    ) -> Effect {
        Effect::Note(Note {
            operation: self.id.clone(),
            elapsed_micros: now.moment.since(self.accepted).as_micros() as u64,
            wall: now.wall,
            key: key.cloned(),
            node,
            what,
        })
    }
}
