//! What somebody asks for: turned into an operation, or refused before anything is touched.

use std::collections::BTreeMap;

use crate::guard::Guard;
use crate::observe::RedisView;
use crate::order::Refusal;
use crate::readiness::{Level, Question, judge};
use crate::record::{
    Automatic, AutomaticMode, ClaimPhase, DatastoreRecord, OperationKind, Record, Until,
};
use crate::words::{DatastoreName, NodeId, OperationId, Region, WallMillis};

use super::Orchestrator;
use super::activity::{Activity, Facts, plan};
use super::automatic::Cause;
use super::change::owns_the_stack;
use super::input::{Asked, Consent, Now, Request};
use super::output::{Effect, Noted};
use super::seen::Answering;

/// What an operation begins with.
pub(super) struct Beginning {
    pub(super) id: OperationId,
    pub(super) kind: OperationKind,
    pub(super) target: Region,
    pub(super) node: Option<NodeId>,
    pub(super) consent: Consent,
    pub(super) by: String,
    pub(super) reason: String,
    /// Why the writer counts as dead, where nobody asked.
    pub(super) cause: Option<Cause>,
    pub(super) arming: Option<Automatic>,
}

/// `min-replicas-to-write` at and above which a master counts as fenced.
pub(super) const FENCED: u64 = 99;

impl Orchestrator {
    pub(super) fn asked(&mut self, now: &Now, request: Request, out: &mut Vec<Effect>) {
        match self.accept(now, &request.what) {
            Ok((kind, node, consent)) => {
                let target = match &request.what {
                    Asked::Move { target, .. } => target.clone(),
                    Asked::Rebuild { .. } | Asked::Expose { .. } | Asked::Arm { .. } => {
                        self.writer()
                    }
                };
                let arming = self.arming(now, &request);
                let beginning = Beginning {
                    id: request.id,
                    kind,
                    target,
                    node,
                    consent,
                    by: request.by,
                    reason: request.reason,
                    cause: None,
                    arming,
                };
                self.start(now, beginning, out);
            }
            Err(refusal) => out.push(Effect::Refused { request, refusal }),
        }
    }

    fn accept(
        &self,
        now: &Now,
        what: &Asked,
    ) -> Result<(OperationKind, Option<NodeId>, Consent), Refusal> {
        if let Some(why) = &self.frozen {
            return Err(Refusal::new("frozen", why.clone()));
        }
        let Some(record) = &self.record else {
            return Err(Refusal::new("no-record", "the authority record has not been read yet"));
        };
        if record.driver != self.driver {
            return Err(Refusal::new("not-driving", "this orchestrator does not act yet"));
        }
        if let Some(refusal) = self.store_is_silent(now) {
            return Err(refusal);
        }
        match what {
            Asked::Move { target, consent } => {
                if !self.settings.shape.regions.contains(target) {
                    let known: Vec<&str> =
                        self.settings.shape.regions.iter().map(Region::as_str).collect();
                    return Err(Refusal::new(
                        "unknown-region",
                        format!("there is no region {target}; there are {}", known.join(", ")),
                    ));
                }
                self.stack_is_free(record)?;
                if record.writer == *target {
                    return Err(Refusal::new(
                        "already-writer",
                        format!("{target} is the writer already, since epoch {}", record.epoch),
                    ));
                }
                let silence = self.settings.limits.silence;
                let old_answers =
                    self.seen.agent_silent(&record.writer, now.moment, silence).is_none();
                let home = self.settings.shape.regions.first() == Some(target);
                let kind = match (old_answers, home) {
                    (false, _) => OperationKind::Failover,
                    (true, true) => OperationKind::Failback,
                    (true, false) => OperationKind::Switchover,
                };
                Ok((kind, None, *consent))
            }
            Asked::Rebuild { node } => {
                if !self.settings.shape.datastores.contains_key(node.datastore())
                    || !self.settings.shape.regions.contains(node.region())
                {
                    return Err(Refusal::new("unknown-node", format!("there is no node {node}")));
                }
                self.stack_is_free(record)?;
                if *node.region() == record.writer {
                    return Err(Refusal::new(
                        "is-writer",
                        format!("{node} is the writer's own node; move the writer first"),
                    ));
                }
                self.datastore_is_free(node.datastore())?;
                self.writer_answers(now, record, node.datastore())?;
                Ok((OperationKind::Rebuild, Some(node.clone()), Consent::None))
            }
            Asked::Arm { .. } => {
                self.stack_is_free(record)?;
                Ok((OperationKind::Arm, None, Consent::None))
            }
            Asked::Expose { datastore } => {
                self.stack_is_free(record)?;
                self.datastore_is_free(datastore)?;
                let node = self.member_to_expose(record, datastore)?;
                self.writer_answers(now, record, datastore)?;
                Ok((OperationKind::Expose, Some(node), Consent::None))
            }
        }
    }

    /// Why a rebuild of this node would be refused, if it were asked for now.
    pub fn refusal_of_rebuild(&self, now: &Now, node: &NodeId) -> Option<Refusal> {
        self.accept(now, &Asked::Rebuild { node: node.clone() }).err()
    }

    /// What the record is to say of automatic moves. What was set for a while gives way to what
    /// held without it.
    fn arming(&self, now: &Now, request: &Request) -> Option<Automatic> {
        let Asked::Arm { mode, lasting } = &request.what else { return None };
        let before = self.record.as_ref().map(|record| &record.automatic);
        let held = before.map_or(AutomaticMode::Observe, |before| match &before.until {
            Some(until) => until.then,
            None => before.mode,
        });
        let until = lasting.map(|lasting| Until {
            at: WallMillis(now.wall.0.saturating_add(lasting.as_millis() as i64)),
            then: held,
        });
        Some(Automatic {
            mode: *mode,
            by: request.by.clone(),
            at: now.wall,
            reason: request.reason.clone(),
            until,
        })
    }

    /// The member that would leave; refused where it is healthy, since it would join again at once.
    fn member_to_expose(
        &self,
        record: &Record,
        datastore: &DatastoreName,
    ) -> Result<NodeId, Refusal> {
        let Some(of_record) = record.datastores.get(datastore) else {
            return Err(Refusal::new(
                "unknown-datastore",
                format!("there is no datastore {datastore}"),
            ));
        };
        let other = self.settings.shape.other(&record.writer);
        if let (true, Some(other)) = (of_record.is_waiting(), other) {
            return Ok(NodeId::new(datastore.clone(), other.clone()));
        }
        let Some((node, member)) = of_record.takeover.iter().next() else {
            return Err(Refusal::new(
                "already-exposed",
                format!(
                    "{datastore} has an empty takeover set: it is {}",
                    of_record.protection.word()
                ),
            ));
        };
        let writer = NodeId::new(datastore.clone(), record.writer.clone());
        let streams = self.seen.postgres(&writer).is_some_and(|view| {
            view.followers.iter().any(|follower| {
                follower.name == member.name.to_string() && follower.state == "streaming"
            })
        });
        if streams {
            return Err(Refusal::new(
                "member-is-healthy",
                format!("{node} streams as {}: it would join again at once", member.name),
            ));
        }
        Ok(node.clone())
    }

    /// The operation that has moved the writer, cannot finish, and is retried in the background.
    fn retrying(&self) -> Option<&Activity> {
        self.activities.values().find(|activity| activity.is_retrying())
    }

    /// Who moves the writer, unless it can go no further: a new operation leads out of that.
    fn owner<'a>(&'a self, record: &'a Record) -> Option<(OperationKind, &'a OperationId)> {
        let retrying = self.retrying().map(|activity| &activity.id);
        let claim = record.claim.as_ref().filter(|claim| Some(&claim.operation) != retrying);
        let moving = |activity: &&Activity| activity.kind.moves_writer() && !activity.is_retrying();
        claim.map(|claim| (claim.kind, &claim.operation)).or_else(|| {
            self.activities.values().find(moving).map(|activity| (activity.kind, &activity.id))
        })
    }

    /// Whether the writer is being moved.
    pub(super) fn is_owned(&self, record: &Record) -> bool {
        self.owner(record).is_some()
    }

    fn stack_is_free(&self, record: &Record) -> Result<(), Refusal> {
        match self.owner(record) {
            Some((kind, operation)) => Err(owns_the_stack(kind, operation)),
            None => Ok(()),
        }
    }

    /// A member is taken out of the takeover set only while the writer's own node is known to live:
    /// otherwise the member may be all that is left.
    fn writer_answers(
        &self,
        now: &Now,
        record: &Record,
        datastore: &DatastoreName,
    ) -> Result<(), Refusal> {
        let writer = NodeId::new(datastore.clone(), record.writer.clone());
        let silence = self.settings.limits.silence;
        match self.seen.answering(&writer, now.moment, silence) {
            Answering::ServerDown | Answering::ServerSilent | Answering::No { .. }
                if !Guard::RebuildNeedsWriter.holds() =>
            {
                Ok(())
            }
            Answering::Yes => Ok(()),
            Answering::ServerDown | Answering::ServerSilent => Err(Refusal::new(
                "writer-not-running",
                format!("{writer} does not run or does not answer: the other copy may be needed"),
            )),
            Answering::No { why } => Err(Refusal::new("writer-not-running", why)),
        }
    }

    /// What is being done to a datastore alone: a repair, or what an operation could not open.
    pub(super) fn busy_with(&self, datastore: &DatastoreName) -> Option<&Activity> {
        self.activities.values().find(|activity| {
            activity.node.as_ref().is_some_and(|node| node.datastore() == datastore)
                || activity.is_retrying() && activity.works_on(datastore)
        })
    }

    fn datastore_is_free(&self, datastore: &DatastoreName) -> Result<(), Refusal> {
        match self.busy_with(datastore) {
            Some(activity) => Err(Refusal::new(
                "repair-running",
                format!(
                    "{} {} works on {datastore}; try again when it is over",
                    activity.kind, activity.id
                ),
            )),
            None => Ok(()),
        }
    }

    fn writer(&self) -> Region {
        match &self.record {
            Some(record) => record.writer.clone(),
            None => self.settings.shape.regions[0].clone(),
        }
    }

    /// Begin an operation.
    pub(super) fn start(&mut self, now: &Now, beginning: Beginning, out: &mut Vec<Effect>) {
        let Beginning { id, kind, target, node, consent, by, reason, cause, arming } = beginning;
        let from = self.writer();
        let facts = match kind.moves_writer() {
            true => self.facts_of_move(&from, &target),
            false => BTreeMap::new(),
        };
        let accepted_risks = self.accepted_risks(now, &target, consent);
        let keys = plan(&self.settings.shape, kind, node.as_ref());
        let activity = Activity {
            id: id.clone(),
            kind,
            from,
            target,
            node,
            by: by.clone(),
            reason,
            consent,
            cause,
            arming,
            accepted: now.moment,
            accepted_wall: now.wall,
            phase: ClaimPhase::Before,
            steps: Activity::waiting(keys),
            facts,
            without_old: BTreeMap::new(),
            exceptions: BTreeMap::new(),
            accepted_risks,
            abort: None,
            answered: false,
            supersedes: self.retrying().map(|activity| activity.id.clone()),
        };
        out.push(Effect::Began(Box::new(activity.clone())));
        out.push(activity.note(now, None, None, Noted::Accepted { kind, by }));
        self.activities.insert(id, activity);
    }

    /// What a move relies on of the record, and puts back if it is undone, as it is now.
    pub(super) fn facts_of_move(
        &self,
        from: &Region,
        target: &Region,
    ) -> BTreeMap<DatastoreName, Facts> {
        let Some(record) = &self.record else { return BTreeMap::new() };
        let of = |name: &DatastoreName, datastore: &DatastoreRecord| {
            let old = NodeId::new(name.clone(), from.clone());
            let new = NodeId::new(name.clone(), target.clone());
            Facts {
                member: datastore.takeover.get(&new).cloned(),
                min_replicas_before: self
                    .seen
                    .redis(&old)
                    .and_then(|view: &RedisView| view.min_replicas_to_write)
                    .map(|value| if value >= FENCED { 0 } else { value }),
                ..Facts::default()
            }
        };
        record.datastores.iter().map(|(name, it)| (name.clone(), of(name, it))).collect()
    }

    /// The findings that would have refused the move without the operator's consent.
    pub(super) fn accepted_risks(
        &self,
        now: &Now,
        target: &Region,
        consent: Consent,
    ) -> Vec<String> {
        let (Some(record), true) = (&self.record, consent != Consent::None) else {
            return Vec::new();
        };
        let question = Question {
            settings: &self.settings,
            record,
            seen: &self.seen,
            lag: &self.lag,
            timing: &self.timing,
            now: now.moment,
            target,
            consent,
        };
        judge(&question)
            .into_iter()
            .filter(|finding| finding.level == Level::Warn)
            .map(|finding| finding.sentence)
            .collect()
    }

    /// A move that takes the stack takes precedence over repairs. What they have under way at agents
    /// is superseded by the newer stamps of the move; what they have not begun is dropped. A move
    /// that is refused leaves them alone.
    pub(super) fn end_repairs(&mut self, now: &Now, mover: &OperationId, out: &mut Vec<Effect>) {
        if !Guard::RepairsGiveWay.holds() {
            return;
        }
        let ids: Vec<OperationId> =
            self.activities.keys().filter(|id| *id != mover).cloned().collect();
        for id in ids {
            self.wanted.retain(|wanted| wanted.by.as_ref().is_none_or(|(by, _)| *by != id));
            if let Some(mut activity) = self.activities.remove(&id) {
                let refusal = Refusal::new("superseded", "a change of writer took precedence");
                activity.abort = Some(refusal.clone());
                let ended = super::activity::Ended::Failed { why: refusal.to_string() };
                out.push(activity.note(
                    now,
                    None,
                    None,
                    Noted::Ended { sentence: refusal.to_string() },
                ));
                out.push(Effect::Ended { activity: Box::new(activity), ended });
            }
        }
    }
}
