//! What each step orders, given what is known when it begins. One match over every step: adding a
//! step does not compile until it is answered here.

use std::time::Duration;

use crate::guard::Guard;
use crate::observe::{PostgresRole, PostgresView, ProcessState, ProtectionMode};
use crate::order::{Order, PromoteMember, Refusal};
use crate::readiness::{self, Question};
use crate::record::{Claim, ClaimPhase, DatastoreRecord, End, Finished, OperationKind};
use crate::steps::{Step, StepKey};
use crate::words::{DatastoreName, NodeId, Region, SyncName, WalPosition};

use super::activity::{Activity, Verdict};
use super::change::Change;
use super::input::{Consent, Now};
use super::seen::Answering;
use super::{Begin, Orchestrator};

pub(super) fn skip(why: impl Into<String>) -> Begin {
    Begin::Settle(Verdict::Skipped { why: why.into() })
}

fn done() -> Begin {
    Begin::Settle(Verdict::Done { learnt: None })
}

/// The least time for an answer of a master that has been silent.
const ASKED_FOR_AT_LEAST: Duration = Duration::from_millis(30);

impl Orchestrator {
    /// What beginning this step comes to.
    pub(super) fn begin(&self, now: &Now, activity: &Activity, key: &StepKey) -> Begin {
        match &key.datastore {
            None => self.begin_stack(now, activity, key.step),
            Some(name) => {
                if let Some(why) = activity.exceptions.get(name) {
                    return skip(format!("{name} stays closed: {why}"));
                }
                if let Some(route) = &key.route {
                    return self.begin_on_route(now, activity, key.step, route);
                }
                self.begin_datastore(now, activity, key.step, name)
            }
        }
    }

    fn begin_stack(&self, now: &Now, activity: &Activity, step: Step) -> Begin {
        let operation = activity.id.clone();
        match step {
            Step::HealthCheck => match self.health_check(now, activity) {
                Ok(()) => done(),
                Err(refusal) if self.is_early(now, activity, &refusal) => Begin::NotYet,
                Err(refusal) => Begin::Settle(Verdict::Refused { refusal }),
            },
            Step::Claim => Begin::Change(Change::Claim(self.claim(activity))),
            Step::Hold if self.settings.shape.routes.is_empty() => skip("no routes are configured"),
            Step::Hold => done(),
            Step::Swap => self.begin_swap(now, activity),
            Step::Route => self.begin_route(activity),
            Step::Finish => {
                if activity.exceptions.is_empty() {
                    let end = match &activity.abort {
                        None => End::Succeeded,
                        Some(refusal) => End::Undone { refusal: refusal.clone() },
                    };
                    Begin::Change(Change::Finish(Finished { operation, end }))
                } else {
                    Begin::NotYet
                }
            }
            Step::RecordAbort => Begin::Change(Change::Abort { operation }),
            Step::RecordArm => match &activity.arming {
                Some(automatic) => Begin::Change(Change::Arm(automatic.clone())),
                None => skip("nothing was said of automatic moves"),
            },
            Step::Checkpoint
            | Step::Vote
            | Step::Drain
            | Step::Receive
            | Step::Pause
            | Step::AskMaster
            | Step::CatchUp
            | Step::Fence
            | Step::CatchUpFenced
            | Step::Stop
            | Step::Promote
            | Step::PromoteRedis
            | Step::Demote
            | Step::Announce
            | Step::SentinelFailover
            | Step::Validate
            | Step::ValidateRedis
            | Step::Unfence
            | Step::Start
            | Step::StartRedis
            | Step::Admit
            | Step::Follow
            | Step::FollowRedis
            | Step::JoinBegin
            | Step::Rename
            | Step::JoinProve
            | Step::RecordJoin
            | Step::Number
            | Step::RecordBorn
            | Step::RecordLeave
            | Step::Leave
            | Step::HoldRoute
            | Step::SwitchRoute
            | Step::ReleaseRoute
            | Step::ResumeRoute => skip("this step belongs to a datastore"),
        }
    }

    fn begin_datastore(
        &self,
        now: &Now,
        activity: &Activity,
        step: Step,
        name: &DatastoreName,
    ) -> Begin {
        let limits = &self.settings.limits;
        let facts = activity.facts(name);
        let old = NodeId::new(name.clone(), activity.from.clone());
        let new = NodeId::new(name.clone(), activity.target.clone());
        let send = |node: &NodeId, order: Order, limit: Duration| Begin::Send {
            node: node.clone(),
            order,
            limit,
        };
        match step {
            Step::Checkpoint if activity.cause.is_some() => {
                skip("clients wait already: a writer is dead")
            }
            Step::Checkpoint => self.order_to_old(now, activity, name, |node| {
                send(node, Order::PostgresCheckpoint, limits.checkpoint)
            }),
            Step::Vote => send(&new, Order::RedisVote, limits.command),
            Step::Drain if self.seen.postgres(&old).is_some_and(is_standby) => {
                skip(format!("{old} is a standby: it never became the writer"))
            }
            Step::Drain => self.order_to_old(now, activity, name, |node| {
                send(node, Order::PostgresDrain, limits.cooperation)
            }),
            Step::Receive => match facts.drained.clone().or_else(|| floor_of(activity, name)) {
                Some(position) => send(&new, Order::PostgresAwait { position }, limits.receive),
                None => skip("no position is known; loss was accepted"),
            },
            Step::Pause => self.order_to_old(now, activity, name, |node| {
                let pause_ms = limits.pause.as_millis() as u64;
                send(node, Order::RedisPause { pause_ms }, self.patience(step))
            }),
            Step::AskMaster => {
                let down =
                    self.seen.answering(&old, now.moment, limits.silence) == Answering::ServerDown;
                if facts.paused_at.is_some() {
                    skip("its agent answered")
                } else if down {
                    skip("its agent says that it is down")
                } else if activity.consent != Consent::None || !Guard::MasterIsAsked.holds() {
                    skip("loss was accepted")
                } else {
                    let limit = self.patience_with_master(now, &activity.target, &old);
                    send(&new, Order::RedisAskMaster { master: old }, limit)
                }
            }
            Step::CatchUp => match facts.paused_at.clone() {
                Some(position) => send(&new, Order::RedisAwait { position }, limits.pause / 2),
                None => skip("the old master was not paused"),
            },
            Step::Fence => match facts.paused_at {
                Some(_) => send(&old, Order::RedisFence, self.patience(step)),
                None => skip("the old master was not paused"),
            },
            Step::CatchUpFenced => match (facts.paused_at, facts.fenced_at) {
                (Some(paused), Some(fenced)) if paused != fenced => {
                    send(&new, Order::RedisAwait { position: fenced }, limits.pause / 2)
                }
                (Some(_), Some(_)) => skip("nothing was taken in between pause and fence"),
                (None, _) | (_, None) => skip("the old master was not fenced"),
            },
            Step::Stop => self.begin_stop(now, activity, name, &old),
            Step::Promote | Step::PromoteRedis | Step::SentinelFailover
                if !self.lease_is_over(now, activity, name) =>
            {
                Begin::NotYet
            }
            Step::Promote => {
                // Only a takeover member's promotion fences the old primary by itself (P4).
                let fenced = facts.member.is_some()
                    || facts.old_confirmed_stopped
                    || activity.consent == Consent::AcceptLossOldSideIsDown;
                if !fenced && Guard::PromoteNeedsFence.holds() {
                    let why = format!(
                        "{old} is not confirmed stopped, and {new} is not a takeover member: \
                         nothing else keeps {old} from acknowledging"
                    );
                    return Begin::Settle(Verdict::Failed { why });
                }
                let member = facts.member.as_ref().map(|member| PromoteMember {
                    name: member.name.clone(),
                    system: member.system.clone(),
                    timeline: member.timeline,
                    floor: member.floor,
                });
                let accept_loss = activity.consent != Consent::None;
                let order = Order::PostgresPromote {
                    member,
                    stopped_at: facts.stopped_at,
                    accept_loss,
                    names: self.waited_for(name),
                };
                send(&new, order, limits.promote)
            }
            Step::SentinelFailover => send(&new, Order::RedisSentinelFailover, limits.promote),
            Step::PromoteRedis => {
                let equal = activity.kind == OperationKind::Restart || facts.paused_at.is_some();
                // Without the old side the replica's data is all there is: best effort, and the
                // bytes lost are reported when the old side is back (D4).
                let accept_loss = !equal && activity.consent != Consent::None;
                let ended =
                    self.seen.redis(&new).is_some_and(|view| view.process == ProcessState::Stopped);
                if ended && activity.phase == ClaimPhase::After {
                    // Nobody else starts it while the operation goes on, and there is no way back.
                    return send(&new, Order::RedisStart { first: false }, limits.promote);
                }
                send(&new, Order::RedisPromote { accept_loss }, limits.command)
            }
            Step::Demote => {
                if let Some(why) = activity.without_old.get(name) {
                    return skip(why.clone());
                }
                self.order_to_old(now, activity, name, |node| {
                    let order = Order::RedisFollow {
                        upstream: new.clone(),
                        min_replicas_to_write: facts.min_replicas_before.unwrap_or(0),
                        rebuild: false,
                    };
                    send(node, order, limits.command)
                })
            }
            Step::Announce => {
                send(&new, Order::RedisAnnounce { epoch: facts.sentinel_epoch }, limits.command)
            }
            Step::Validate => {
                let token = format!("{}-{}", activity.id, activity.accepted.as_micros());
                send(&new, Order::PostgresValidate { token }, limits.command)
            }
            Step::ValidateRedis => {
                let token = format!("{}-{}", activity.id, activity.accepted.as_micros());
                send(&new, Order::RedisValidate { token }, limits.command)
            }
            Step::Unfence => {
                let min_replicas_to_write = facts.min_replicas_before.unwrap_or(0);
                send(&old, Order::RedisUnfence { min_replicas_to_write }, limits.command)
            }
            Step::Start => {
                let names = self.waited_for(name).filter(|_| Guard::StartsWithNames.holds());
                send(&new, Order::PostgresStart { names }, limits.promote)
            }
            Step::Admit => match self.waited_for(name) {
                Some(name) if name.is_nobody() => {
                    skip("commits wait until a standby has joined, and clients come in after that")
                }
                member => send(&new, Order::PostgresAdmit { member }, limits.promote),
            },
            Step::StartRedis => {
                if self.seen.answering(&new, now.moment, limits.silence) == Answering::Yes {
                    return skip("it runs");
                }
                let first = self
                    .record
                    .as_ref()
                    .and_then(|record| record.datastores.get(name))
                    .is_some_and(|datastore| datastore.memberships == 0);
                send(&new, Order::RedisStart { first }, limits.promote)
            }
            Step::RecordBorn => Begin::Change(Change::Born { datastore: name.clone() }),
            Step::RecordLeave => self.begin_record_leave(activity, name),
            Step::Leave => {
                let writer = NodeId::new(name.clone(), activity.target.clone());
                match self.seen.answering(&writer, now.moment, limits.silence) {
                    // One that runs only takes the names.
                    Answering::Yes if self.is_waiting(name) => {
                        let names = self.waited_for(name);
                        send(&writer, Order::PostgresStart { names }, limits.command)
                    }
                    Answering::Yes => send(&writer, Order::PostgresLeave, limits.command),
                    Answering::ServerDown | Answering::ServerSilent => {
                        skip("the writer's server does not run")
                    }
                    Answering::No { why } => skip(why),
                }
            }
            Step::Follow => match &activity.node {
                Some(node) => {
                    let rebuild = activity.kind == OperationKind::Rebuild;
                    let order = Order::PostgresFollow {
                        upstream: NodeId::new(name.clone(), activity.target.clone()),
                        rebuild,
                        // A rejoin keeps what diverged and may rewind; a rebuild may be asked for
                        // because the old data is all that is left of a loss (P6).
                        keep_old: rebuild,
                    };
                    send(node, order, limits.follow)
                }
                None => skip("no node is named"),
            },
            Step::FollowRedis => match &activity.node {
                Some(node) => {
                    let order = Order::RedisFollow {
                        upstream: NodeId::new(name.clone(), activity.target.clone()),
                        min_replicas_to_write: 0,
                        rebuild: activity.kind == OperationKind::Rebuild,
                    };
                    send(node, order, limits.follow)
                }
                None => skip("no node is named"),
            },
            Step::Number => Begin::Change(Change::Number { datastore: name.clone() }),
            Step::JoinBegin => match facts.joining {
                Some(joining) => {
                    let failures = self.backoff.get(name).map_or(0, |backoff| backoff.failures);
                    let join_limit_ms = limits.next_join(failures).as_millis() as u64;
                    send(
                        &new,
                        Order::PostgresJoinBegin { name: joining, join_limit_ms },
                        limits.command,
                    )
                }
                None => skip("no membership was given out"),
            },
            Step::Rename => match facts.joining {
                Some(joining) => {
                    let node = joining.node().clone();
                    // Nobody waits for it.
                    send(&node, Order::PostgresRename { name: joining }, limits.command * 5)
                }
                None => skip("no membership was given out"),
            },
            Step::JoinProve => match facts.joining {
                Some(joining) => {
                    send(&new, Order::PostgresJoinProve { name: joining }, limits.command)
                }
                None => skip("no membership was given out"),
            },
            Step::RecordJoin => match facts.proven {
                Some(member) => Begin::Change(Change::Join { member }),
                None => Begin::Settle(Verdict::Failed { why: "there is no proof".to_owned() }),
            },
            Step::HealthCheck
            | Step::Claim
            | Step::Hold
            | Step::HoldRoute
            | Step::SwitchRoute
            | Step::ReleaseRoute
            | Step::ResumeRoute
            | Step::Swap
            | Step::Route
            | Step::Finish
            | Step::RecordArm
            | Step::RecordAbort => skip("this step belongs to the stack or to a route"),
        }
    }

    /// Who leaves does so in the record first; a person's word, or the configuration's, ends the
    /// waiting of a datastore that has nobody to leave.
    fn begin_record_leave(&self, activity: &Activity, name: &DatastoreName) -> Begin {
        let mode = self.protection_mode(name);
        let reason = activity.reason.clone();
        let ends_waiting = mode == ProtectionMode::MaxAvailability && self.is_waiting(name);
        let leaves = |node: &&NodeId| {
            // Only a rebuild releases what is held.
            let released = activity.kind == OperationKind::Rebuild && self.is_held(node);
            self.is_member(node) || released
        };
        match activity.node.as_ref().filter(leaves) {
            Some(_) | None if activity.kind == OperationKind::Expose => {
                Begin::Change(Change::Expose { datastore: name.clone(), reason })
            }
            Some(node) => Begin::Change(Change::Leave { node: node.clone(), reason, mode }),
            None if ends_waiting => {
                Begin::Change(Change::Expose { datastore: name.clone(), reason })
            }
            None => skip("it is neither in the takeover set nor held"),
        }
    }

    /// Judge whether the move may begin.
    fn health_check(&self, now: &Now, activity: &Activity) -> Result<(), Refusal> {
        let Some(record) = &self.record else {
            return Err(Refusal::new("no-record", "the authority record is not known"));
        };
        readiness::may_move(&Question {
            settings: &self.settings,
            record,
            seen: &self.seen,
            lag: &self.lag,
            timing: &self.timing,
            now: now.moment,
            target: &activity.target,
            consent: activity.consent,
        })
    }

    /// Whether a refusal may rest on what was so before the question. A region that has just died
    /// is first seen as a broken Redis link beside an agent that seems to answer: nothing is
    /// refused on that before every agent has reported again or counts as silent.
    fn is_early(&self, now: &Now, activity: &Activity, refusal: &Refusal) -> bool {
        let silence = self.settings.limits.silence;
        if now.moment.since(activity.accepted) > silence {
            return false;
        }
        let reports_from_before = self.settings.shape.regions.iter().any(|region| {
            let reported = self.seen.region(region).and_then(|seen| seen.report.as_ref());
            self.seen.agent_silent(region, now.moment, silence).is_none()
                && reported.is_none_or(|(_, at)| *at <= activity.accepted)
        });
        reports_from_before || refusal.code == readiness::REDIS_NOT_READY
    }

    fn claim(&self, activity: &Activity) -> Claim {
        let undo = activity
            .facts
            .iter()
            .filter_map(|(name, facts)| {
                let min_replicas_to_write = facts.min_replicas_before?;
                Some((name.clone(), crate::record::Undo { min_replicas_to_write }))
            })
            .collect();
        Claim {
            operation: activity.id.clone(),
            kind: activity.kind,
            from: activity.from.clone(),
            target: activity.target.clone(),
            node: activity.node.clone(),
            phase: activity.phase,
            accepted: activity.accepted_wall,
            requested_by: activity.by.clone(),
            reason: activity.reason.clone(),
            undo,
            members: Default::default(),
            accept_loss: activity.consent != Consent::None,
            old_side_is_down: activity.consent == Consent::AcceptLossOldSideIsDown,
            superseded: self.superseded(activity).map(Box::new),
        }
    }

    /// The claim of the operation whose place this one takes, if it still owns the stack.
    fn superseded(&self, activity: &Activity) -> Option<Claim> {
        let claim = self.record.as_ref()?.claim.clone()?;
        (activity.supersedes.as_ref() == Some(&claim.operation)).then_some(claim)
    }

    /// The swap waits until the target is known to have heard of the record from which it starts
    /// (R2): otherwise its promote command could be older than what it obeys.
    fn begin_swap(&self, now: &Now, activity: &Activity) -> Begin {
        let Some(record) = &self.record else { return Begin::NotYet };
        if let Some(refusal) = self.unfenced(now, activity) {
            return Begin::Settle(Verdict::Refused { refusal });
        }
        let heard = self.seen.region(&activity.target).and_then(|seen| seen.heard.as_ref());
        let covers = heard.is_some_and(|heard| heard.covers(&record.heard()));
        if covers || !Guard::SwapNeedsHeard.holds() {
            let members = activity
                .facts
                .iter()
                .filter_map(|(name, facts)| {
                    Some((name.clone(), facts.member.as_ref()?.name.clone()))
                })
                .collect();
            let keeps_waiting =
                |name: &&DatastoreName| self.protection_mode(name) == ProtectionMode::MaxProtection;
            let waiting = record.datastores.keys().filter(keeps_waiting).cloned().collect();
            let operation = activity.id.clone();
            return Begin::Change(Change::Swap { operation, members, waiting });
        }
        let waited = now.moment.since(activity.waiting_since(Step::Swap));
        if waited > self.settings.limits.receive {
            return Begin::Settle(Verdict::Failed {
                why: format!(
                    "the agent of {} has not heard of {} within {} ms",
                    activity.target,
                    record.heard(),
                    waited.as_millis()
                ),
            });
        }
        Begin::NotYet
    }

    /// Where the target is no takeover member, its promotion does not fence the old primary (P4):
    /// the old side must answer, so that its stop can be confirmed, or be known to be down (L5).
    fn unfenced(&self, now: &Now, activity: &Activity) -> Option<Refusal> {
        let told = activity.consent == Consent::AcceptLossOldSideIsDown;
        if told || !Guard::SwapNeedsOldSide.holds() {
            return None;
        }
        let silence = self.settings.limits.silence;
        self.settings.shape.datastores.iter().find_map(|(name, datastore)| {
            let needs_stop = datastore.kind == crate::record::DatastoreKind::Postgres
                && activity.facts(name).member.is_none();
            if !needs_stop {
                return None;
            }
            let why = self.seen.agent_silent(&activity.from, now.moment, silence)?;
            Some(Refusal::new(
                "old-side-not-known-down",
                format!("{why}, and {name} has no takeover member that would fence it"),
            ))
        })
    }

    fn begin_route(&self, activity: &Activity) -> Begin {
        let Some(record) = &self.record else { return Begin::NotYet };
        let heard = self.seen.region(&activity.target).and_then(|seen| seen.heard.as_ref());
        if heard.is_some_and(|heard| heard.lineage == record.lineage && heard.epoch >= record.epoch)
        {
            Begin::Settle(Verdict::Done {
                learnt: Some(format!(
                    "the agent of {} heard epoch {}",
                    activity.target, record.epoch
                )),
            })
        } else {
            Begin::NotYet
        }
    }

    fn begin_stop(
        &self,
        now: &Now,
        activity: &Activity,
        name: &DatastoreName,
        old: &NodeId,
    ) -> Begin {
        let limits = &self.settings.limits;
        let send = |limit| Begin::Send { node: old.clone(), order: Order::PostgresStop, limit };
        if activity.from == activity.target {
            return skip("the writer did not move");
        }
        if self.is_member(old) {
            return skip(format!("{old} has joined since"));
        }
        match self.seen.answering(old, now.moment, limits.cooperation) {
            Answering::Yes if !activity.without_old.contains_key(name) => send(limits.stop),
            Answering::Yes | Answering::ServerSilent => send(limits.stop_silent),
            Answering::ServerDown => send(limits.cooperation),
            Answering::No { why } => skip(why),
        }
    }

    /// An order to the old side of a datastore, if that can still be asked.
    fn order_to_old(
        &self,
        now: &Now,
        activity: &Activity,
        name: &DatastoreName,
        send: impl FnOnce(&NodeId) -> Begin,
    ) -> Begin {
        if let Some(why) = activity.without_old.get(name) {
            return skip(why.clone());
        }
        let old = NodeId::new(name.clone(), activity.from.clone());
        match self.seen.answering(&old, now.moment, self.settings.limits.silence) {
            Answering::Yes => send(&old),
            Answering::ServerDown => skip(format!("{old} is down")),
            Answering::ServerSilent => skip(format!("{old} does not answer")),
            Answering::No { why } => skip(why),
        }
    }

    /// How long a master's answer is waited for. One that has answered nobody for a whole window
    /// gets what two round trips take at their slowest, and half as long again; it is asked all the same,
    /// since nothing may rest on a detector alone.
    fn patience_with_master(&self, now: &Now, target: &Region, master: &NodeId) -> Duration {
        let most = self.settings.limits.cooperation;
        if !self.is_blind_to(now, target, master) {
            return most;
        }
        let slow = self.timing.slowest().map_or(most, |(_, quantiles)| quantiles.p99 * 3);
        slow.max(ASKED_FOR_AT_LEAST).min(most)
    }

    /// The name for which the writer's node of a datastore must wait; `None` where the record
    /// says exposed.
    fn waited_for(&self, name: &DatastoreName) -> Option<SyncName> {
        let record = self.record.as_ref()?;
        let datastore = record.datastores.get(name)?;
        if datastore.is_waiting() {
            let other = self.settings.shape.other(&record.writer)?;
            return Some(SyncName::nobody(NodeId::new(name.clone(), other.clone())));
        }
        datastore.takeover.values().next().map(|member| member.name.clone())
    }

    /// Whether commits of a datastore wait until a standby has joined.
    pub(super) fn is_waiting(&self, name: &DatastoreName) -> bool {
        let datastore = self.record.as_ref().and_then(|record| record.datastores.get(name));
        datastore.is_some_and(DatastoreRecord::is_waiting)
    }

    fn protection_mode(&self, name: &DatastoreName) -> ProtectionMode {
        let shape = self.settings.shape.datastores.get(name);
        shape.map(|shape| shape.protection).unwrap_or_default()
    }

    fn is_member(&self, node: &NodeId) -> bool {
        self.record
            .as_ref()
            .and_then(|record| record.datastores.get(node.datastore()))
            .is_some_and(|datastore| datastore.takeover.contains_key(node))
    }

    fn is_held(&self, node: &NodeId) -> bool {
        self.record.as_ref().is_some_and(|record| record.held.contains_key(node))
    }

    /// Whether a datastore of this operation may go on without its old side.
    pub(super) fn may_go_without(&self, activity: &Activity, name: &DatastoreName) -> bool {
        if activity.consent == Consent::AcceptLossOldSideIsDown {
            return true;
        }
        let target: &Region = &activity.target;
        match self.settings.shape.datastores.get(name).map(|datastore| datastore.kind) {
            Some(crate::record::DatastoreKind::Postgres) => activity
                .facts(name)
                .member
                .is_some_and(|member| member.name.node().region() == target),
            Some(crate::record::DatastoreKind::Redis) => true,
            None => false,
        }
    }
}

fn is_standby(view: &PostgresView) -> bool {
    view.role == Some(PostgresRole::Standby)
}

fn floor_of(activity: &Activity, name: &DatastoreName) -> Option<WalPosition> {
    activity.facts(name).member.map(|member| WalPosition {
        system: member.system,
        timeline: member.timeline,
        lsn: member.floor,
    })
}
