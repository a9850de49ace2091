//! One operation under way: which steps it has, how far each is, what was learnt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observe::{Announce, Shape};
use crate::order::{Fact, Outcome, Refusal};
use crate::record::{Automatic, ClaimPhase, DatastoreKind, Member, OperationKind};
use crate::steps::{Scope, Step, StepKey, TABLE};
use crate::words::{
    DatastoreName, Moment, NodeId, OperationId, RedisPosition, Region, Stamp, SyncName,
    WalPosition, WallMillis,
};

use super::automatic::Cause;
use super::input::Consent;

/// One operation under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// Its id.
    pub id: OperationId,
    /// Its kind.
    pub kind: OperationKind,
    /// The writer before it.
    pub from: Region,
    /// The writer after it.
    pub target: Region,
    /// The node it is about (repairs).
    pub node: Option<NodeId>,
    /// Who asked: a person's name, or the decider's row.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What the operator took upon themselves.
    pub consent: Consent,
    /// Why the writer counted as dead, where nobody asked.
    pub cause: Option<Cause>,
    /// What is to be noted of automatic moves, where that is what it is about.
    pub arming: Option<Automatic>,
    /// When it was accepted.
    pub accepted: Moment,
    /// When it was accepted, for people.
    pub accepted_wall: WallMillis,
    /// How far it is as far as the record knows.
    pub phase: ClaimPhase,
    /// Its steps, in the order of the table.
    pub steps: Vec<StepState>,
    /// What was learnt.
    pub facts: BTreeMap<DatastoreName, Facts>,
    /// Datastores that go on without their old side, and why.
    pub without_old: BTreeMap<DatastoreName, String>,
    /// Datastores that stay closed, and why.
    pub exceptions: BTreeMap<DatastoreName, String>,
    /// What the operator accepted, with its numbers; for the history.
    pub accepted_risks: Vec<String>,
    /// Why it is being aborted.
    pub abort: Option<Refusal>,
    /// It was answered; what remains is retried in the background.
    pub answered: bool,
    /// The operation that has moved the writer and cannot finish, whose place this one takes.
    pub supersedes: Option<OperationId>,
}

/// One step of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Which.
    pub key: StepKey,
    /// How far.
    pub progress: Progress,
    /// How often it was begun.
    pub attempts: u32,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Not begun; not before this moment.
    Waiting {
        /// Earliest begin.
        not_before: Moment,
    },
    /// Begun.
    Running {
        /// When.
        since: Moment,
        /// The command it sent, if it sent one.
        sent: Option<Sent>,
    },
    /// Over.
    Settled {
        /// When it began.
        from: Moment,
        /// When it ended.
        to: Moment,
        /// How.
        verdict: Verdict,
    },
}

/// A command on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// To which node.
    pub node: NodeId,
    /// Under which stamp.
    pub stamp: Stamp,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so.
    Done {
        /// What was learnt, in words.
        learnt: Option<String>,
    },
    /// It was not needed, or not possible and not necessary.
    Skipped {
        /// Why.
        why: String,
    },
    /// The agent must not.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// It is not so.
    Failed {
        /// Why.
        why: String,
    },
    /// Nobody knows.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Verdict {
    /// Whether the operation can rely on what follows from it.
    pub fn is_good(&self) -> bool {
        match self {
            Verdict::Done { .. } | Verdict::Skipped { .. } => true,
            Verdict::Refused { .. } | Verdict::Failed { .. } | Verdict::Unknown { .. } => false,
        }
    }

    /// In words.
    pub fn sentence(&self) -> String {
        match self {
            Verdict::Done { learnt: Some(learnt) } => format!("done: {learnt}"),
            Verdict::Done { learnt: None } => "done".to_owned(),
            Verdict::Skipped { why } => format!("skipped: {why}"),
            Verdict::Refused { refusal } => format!("refused: {refusal}"),
            Verdict::Failed { why } => format!("failed: {why}"),
            Verdict::Unknown { why } => format!("unknown: {why}"),
        }
    }
}

impl From<&Outcome> for Verdict {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done { fact } => Verdict::Done { learnt: fact.sentence() },
            Outcome::Refused { refusal } => Verdict::Refused { refusal: refusal.clone() },
            Outcome::Failed { why } => Verdict::Failed { why: why.clone() },
            Outcome::Unknown { why } => Verdict::Unknown { why: why.clone() },
        }
    }
}

/// What later steps of a datastore need from earlier ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// How far the old primary had written.
    pub drained: Option<WalPosition>,
    /// Where the old primary's last record ends.
    pub stopped_at: Option<WalPosition>,
    /// The old server is confirmed down.
    pub old_confirmed_stopped: bool,
    /// Client sessions that the stop ended.
    pub sessions_ended: u32,
    /// How many of them were in the middle of a transaction.
    pub ended_in_transaction: u32,
    /// The old master's offset under pause.
    pub paused_at: Option<RedisPosition>,
    /// The old master's offset under the fence: it refuses writes from there on.
    pub fenced_at: Option<RedisPosition>,
    /// The Sentinel epoch that was won.
    pub sentinel_epoch: Option<u64>,
    /// The old master's `min-replicas-to-write` before the fence.
    pub min_replicas_before: Option<u64>,
    /// Which membership may be promoted.
    pub member: Option<Member>,
    /// The new membership.
    pub joining: Option<SyncName>,
    /// The proof of the new membership.
    pub proven: Option<Member>,
    /// Bytes that the old side had and nobody else.
    pub diverged_bytes: Option<u64>,
}

impl Facts {
    /// Take in what a command has learnt.
    pub fn learn(&mut self, step: Step, fact: &Fact) {
        match fact {
            Fact::Nothing => {}
            Fact::Wal { position } => {
                if step == Step::Drain {
                    self.drained = Some(position.clone());
                }
            }
            Fact::Stopped { clean_at, ended } => {
                self.stopped_at = clean_at.clone();
                self.old_confirmed_stopped = true;
                self.sessions_ended += ended.all;
                self.ended_in_transaction += ended.in_transaction;
            }
            Fact::Offset { position } => {
                if step == Step::Pause {
                    self.paused_at = Some(position.clone());
                } else if step == Step::Fence {
                    self.fenced_at = Some(position.clone());
                }
            }
            Fact::Voted { epoch, .. } => self.sentinel_epoch = Some(*epoch),
            Fact::Followed { diverged_bytes, .. } => self.diverged_bytes = Some(*diverged_bytes),
            Fact::Proven { system, timeline, lsn } => {
                self.proven = self.joining.clone().map(|name| Member {
                    name,
                    system: system.clone(),
                    timeline: *timeline,
                    floor: *lsn,
                });
            }
            Fact::Promoted { .. }
            | Fact::RedisPromoted { .. }
            | Fact::Waiting { .. }
            | Fact::Announced { .. }
            | Fact::Held { .. }
            | Fact::Released { .. } => {}
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Ended {
    /// Everything is as it was asked.
    Succeeded,
    /// The writer moved; these datastores stay closed and are retried forward.
    WithExceptions {
        /// Datastore to reason.
        exceptions: BTreeMap<DatastoreName, String>,
    },
    /// Nothing was done.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// It was undone: the old side is the writer.
    Aborted {
        /// Why.
        refusal: Refusal,
    },
    /// It is not so, and what is left is named.
    Failed {
        /// Why.
        why: String,
    },
    /// Nobody knows how far it is.
    Unknown {
        /// Why.
        why: String,
    },
}

/// The steps of a change of writer, in the table's order.
const MOVE: &[Step] = &[
    Step::HealthCheck,
    Step::Claim,
    Step::Checkpoint,
    Step::Vote,
    Step::Hold,
    Step::HoldRoute,
    Step::Drain,
    Step::Receive,
    Step::Pause,
    Step::AskMaster,
    Step::CatchUp,
    Step::Fence,
    Step::CatchUpFenced,
    Step::Swap,
    Step::Stop,
    Step::Promote,
    Step::SentinelFailover,
    Step::PromoteRedis,
    Step::Demote,
    Step::Announce,
    Step::Route,
    Step::SwitchRoute,
    Step::ReleaseRoute,
    Step::Validate,
    Step::ValidateRedis,
    Step::Finish,
];

/// The steps of a change of writer that lie after the point of no return.
const MOVE_FORWARD: &[Step] = &[
    Step::Stop,
    Step::Promote,
    Step::PromoteRedis,
    Step::Demote,
    Step::Announce,
    Step::Route,
    Step::SwitchRoute,
    Step::ReleaseRoute,
    Step::Validate,
    Step::ValidateRedis,
    Step::Finish,
];

/// The steps of the way back.
const MOVE_BACK: &[Step] = &[Step::RecordAbort, Step::Unfence, Step::ResumeRoute, Step::Finish];

/// The keys of these steps in this stack, in the table's order.
fn keys(shape: &Shape, steps: &[Step], only: Option<&DatastoreName>) -> Vec<StepKey> {
    let mut keys = Vec::new();
    for row in TABLE.iter().filter(|row| steps.contains(&row.step)) {
        match row.scope {
            Scope::Stack => keys.push(StepKey { step: row.step, datastore: None, route: None }),
            Scope::EachRoute => {
                for (id, route) in &shape.routes {
                    let (datastore, route) =
                        (Some(route.datastore.clone()), Some(Box::new(id.clone())));
                    keys.push(StepKey { step: row.step, datastore, route });
                }
            }
            Scope::Each(kind) => {
                for (name, datastore) in &shape.datastores {
                    let wanted = only.is_none_or(|only| only == name);
                    let documented = row.step == Step::SentinelFailover;
                    let vote = row.step == Step::Vote;
                    let fits = match datastore.announce {
                        Announce::Vote => !documented,
                        Announce::Documented => !vote,
                    };
                    if datastore.kind == kind && wanted && fits {
                        let datastore = Some(name.clone());
                        keys.push(StepKey { step: row.step, datastore, route: None });
                    }
                }
            }
        }
    }
    keys
}

/// Which steps an operation has.
pub fn plan(shape: &Shape, kind: OperationKind, node: Option<&NodeId>) -> Vec<StepKey> {
    let only = node.map(NodeId::datastore);
    let redis = only.and_then(|name| shape.datastores.get(name)).map(|datastore| datastore.kind)
        == Some(DatastoreKind::Redis);
    let steps: &[Step] = match (kind, redis) {
        (OperationKind::Switchover | OperationKind::Failover | OperationKind::Failback, _) => {
            return keys(shape, MOVE, None);
        }
        (OperationKind::Arm, _) => &[Step::RecordArm],
        (OperationKind::Rejoin, false) => &[Step::Follow],
        (OperationKind::Rejoin | OperationKind::Rebuild, true) => &[Step::FollowRedis],
        (OperationKind::Rebuild, false) => &[Step::RecordLeave, Step::Leave, Step::Follow],
        (OperationKind::Join, _) => {
            &[Step::Number, Step::Rename, Step::JoinBegin, Step::JoinProve, Step::RecordJoin]
        }
        (OperationKind::Leave | OperationKind::Expose, _) => &[Step::RecordLeave, Step::Leave],
        (OperationKind::Restart, false) => &[Step::Start, Step::Admit],
        (OperationKind::Restart, true) => {
            &[Step::StartRedis, Step::RecordBorn, Step::PromoteRedis, Step::Announce]
        }
    };
    keys(shape, steps, only)
}

/// The steps that go on after the point of no return, for whoever takes over.
pub fn forward_plan(shape: &Shape) -> Vec<StepKey> {
    keys(shape, MOVE_FORWARD, None)
}

/// The steps of the way back.
pub fn back_plan(shape: &Shape) -> Vec<StepKey> {
    keys(shape, MOVE_BACK, None)
}

impl Activity {
    /// Turn keys into steps that have not begun.
    pub fn waiting(keys: Vec<StepKey>) -> Vec<StepState> {
        keys.into_iter()
            .map(|key| StepState {
                key,
                progress: Progress::Waiting { not_before: Moment::ZERO },
                attempts: 0,
            })
            .collect()
    }

    /// The facts of a datastore.
    pub fn facts(&self, datastore: &DatastoreName) -> Facts {
        self.facts.get(datastore).cloned().unwrap_or_default()
    }

    /// The verdict of a step, once it is settled.
    pub fn verdict(&self, step: Step, datastore: Option<&DatastoreName>) -> Option<&Verdict> {
        self.steps
            .iter()
            .find(|state| state.key.step == step && state.key.datastore.as_ref() == datastore)
            .and_then(|state| match &state.progress {
                Progress::Settled { verdict, .. } => Some(verdict),
                Progress::Waiting { .. } | Progress::Running { .. } => None,
            })
    }

    /// Whether every step is settled.
    pub fn is_settled(&self) -> bool {
        self.steps.iter().all(|state| matches!(state.progress, Progress::Settled { .. }))
    }

    /// Whether the writer has moved, it was said what stays closed, and the rest is only retried.
    pub fn is_retrying(&self) -> bool {
        self.answered && self.phase == ClaimPhase::After
    }

    /// Whether anything is still to be done for a datastore.
    pub fn works_on(&self, datastore: &DatastoreName) -> bool {
        self.exceptions.contains_key(datastore)
            || self.steps.iter().any(|state| {
                state.key.datastore.as_ref() == Some(datastore)
                    && !matches!(state.progress, Progress::Settled { .. })
            })
    }

    /// Whether a step of this datastore was ever sent to its old side.
    pub fn was_sent(&self, step: Step, datastore: &DatastoreName) -> bool {
        self.steps.iter().any(|state| {
            state.key.step == step
                && state.key.datastore.as_ref() == Some(datastore)
                && match &state.progress {
                    Progress::Waiting { .. } => false,
                    Progress::Running { sent, .. } => sent.is_some(),
                    Progress::Settled { verdict, .. } => {
                        !matches!(verdict, Verdict::Skipped { .. } | Verdict::Refused { .. })
                    }
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{DatastoreShape, MovePolicy, OnProcessDeath, ProtectionMode};
    use crate::steps::{Side, row};

    #[test]
    fn two_steps_on_one_node_of_a_repair_never_run_at_once() {
        let shape = |kind| {
            let datastore = DatastoreShape {
                kind,
                policy: MovePolicy::Required,
                addresses: BTreeMap::new(),
                announce: Announce::Vote,
                on_process_death: OnProcessDeath::Restart,
                protection: ProtectionMode::MaxAvailability,
            };
            let regions = ["here", "there"].map(|name| name.parse().unwrap()).to_vec();
            let datastores = [("it".parse().unwrap(), datastore)].into();
            Shape { regions, datastores, routes: BTreeMap::new() }
        };
        // The writer's node, or the other one; what only looks or stores is on neither.
        let place = |kind: OperationKind, step: Step| match row(step).side {
            Side::New | Side::Writer | Side::Old => Some("writer"),
            Side::Node if kind == OperationKind::Restart => Some("writer"),
            Side::Node => Some("other"),
            Side::Here | Side::Record | Side::Route => None,
        };
        for kind in [
            OperationKind::Rejoin,
            OperationKind::Rebuild,
            OperationKind::Join,
            OperationKind::Leave,
            OperationKind::Expose,
            OperationKind::Restart,
        ] {
            for of in [DatastoreKind::Postgres, DatastoreKind::Redis] {
                let node: NodeId = "it.there".parse().unwrap();
                let steps: Vec<Step> =
                    plan(&shape(of), kind, Some(&node)).into_iter().map(|key| key.step).collect();
                let behind = |step: Step| {
                    let mut found = row(step).after.to_vec();
                    found.retain(|step| steps.contains(step));
                    let mut place = 0;
                    while place < found.len() {
                        found.extend(row(found[place]).after);
                        found.retain(|step| steps.contains(step));
                        place += 1;
                    }
                    found
                };
                for one in &steps {
                    for other in &steps {
                        let same =
                            place(kind, *one).is_some() && place(kind, *one) == place(kind, *other);
                        if one != other && same {
                            assert!(
                                behind(*one).contains(other) || behind(*other).contains(one),
                                "{kind} of {of}: {one} and {other} may run at once"
                            );
                        }
                    }
                }
            }
        }
    }
}
