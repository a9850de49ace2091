//! The rows. Read the first block from top to bottom and you have read a regional switch.

use super::{Scope, SpecificationStep, Step};
use crate::record::DatastoreKind::{Postgres, Redis};

/// One row: everything about a step that is the same in every operation.
#[derive(Debug)]
pub struct StepRow {
    /// The step.
    pub step: Step,
    /// One for the stack, or one for each datastore of a kind.
    pub scope: Scope,
    /// Where its effect happens.
    pub side: Side,
    /// Steps that must be settled before. A step of a datastore waits for the same datastore's
    /// steps; a step of the stack waits for those of all datastores.
    pub after: &'static [Step],
    /// What it means if it does not become so.
    pub trouble: Trouble,
    /// Which column of the specification it is counted under.
    pub counts_as: Option<SpecificationStep>,
    /// What it does, for people.
    pub sentence: &'static str,
}

/// Where the effect of a step happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the orchestrator's own knowledge.
    Here,
    /// In the authority record.
    Record,
    /// On the node of the region that was the writer.
    Old,
    /// On the node of the region that becomes the writer.
    New,
    /// On the writer's node (repairs).
    Writer,
    /// On the node that is repaired.
    Node,
    /// On a route, beside clients.
    Route,
}

/// What it means if a step does not become so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing has happened yet: the operation is refused.
    Refuse,
    /// Back to the old side.
    Abort,
    /// Note it and go on.
    GoOn,
    /// Go on without the old side if the target may be promoted without it, else abort.
    WithoutOldSide,
    /// Only forward: try again with a new stamp, then leave this datastore closed and say so.
    Forward,
    /// The repair ends; the decider looks again a little later.
    GiveUp,
}

/// The row of a step.
pub fn row(step: Step) -> &'static StepRow {
    // Every step has exactly one row: a test in this file walks `Step::ALL`.
    TABLE.iter().find(|row| row.step == step).unwrap_or(&TABLE[0])
}

const fn stack(
    step: Step,
    side: Side,
    after: &'static [Step],
    trouble: Trouble,
    counts_as: Option<SpecificationStep>,
    sentence: &'static str,
) -> StepRow {
    StepRow { step, scope: Scope::Stack, side, after, trouble, counts_as, sentence }
}

const fn postgres(
    step: Step,
    side: Side,
    after: &'static [Step],
    trouble: Trouble,
    counts_as: Option<SpecificationStep>,
    sentence: &'static str,
) -> StepRow {
    StepRow { step, scope: Scope::Each(Postgres), side, after, trouble, counts_as, sentence }
}

const fn redis(
    step: Step,
    side: Side,
    after: &'static [Step],
    trouble: Trouble,
    counts_as: Option<SpecificationStep>,
    sentence: &'static str,
) -> StepRow {
    StepRow { step, scope: Scope::Each(Redis), side, after, trouble, counts_as, sentence }
}

const fn route(
    step: Step,
    after: &'static [Step],
    counts_as: Option<SpecificationStep>,
    sentence: &'static str,
) -> StepRow {
    // A route that cannot be told is noted: its clients meet errors, as without it, and its agent
    // points it at the writer as soon as it can.
    let (scope, side, trouble) = (Scope::EachRoute, Side::Route, Trouble::GoOn);
    StepRow { step, scope, side, after, trouble, counts_as, sentence }
}

use SpecificationStep as Column;

/// All rows.
pub const TABLE: &[StepRow] = &[
    // The switch, up to the point of no return.
    stack(
        Step::HealthCheck,
        Side::Here,
        &[],
        Trouble::Refuse,
        Some(Column::HealthCheck),
        "fresh reports of both sides are judged; what cannot work is refused",
    ),
    stack(
        Step::Claim,
        Side::Record,
        &[Step::HealthCheck],
        Trouble::Refuse,
        Some(Column::Prepare),
        "the intent is stored with every value an undo needs",
    ),
    postgres(
        Step::Checkpoint,
        Side::Old,
        &[Step::Claim],
        Trouble::GoOn,
        Some(Column::Prepare),
        "the old primary writes a checkpoint, so that its stop is short",
    ),
    redis(
        Step::Vote,
        Side::New,
        &[Step::Claim],
        Trouble::GoOn,
        Some(Column::Prepare),
        "a Sentinel epoch is won by majority vote",
    ),
    stack(
        Step::Hold,
        Side::Here,
        &[Step::Checkpoint, Step::Vote],
        Trouble::Abort,
        None,
        "everything is prepared: from here on clients wait",
    ),
    route(
        Step::HoldRoute,
        &[Step::Hold],
        Some(Column::DatabasePromotion),
        "the route holds new transactions, and open ones may end",
    ),
    postgres(
        Step::Drain,
        Side::Old,
        &[Step::Hold, Step::HoldRoute],
        Trouble::WithoutOldSide,
        Some(Column::DatabasePromotion),
        "the old primary says how far it has written",
    ),
    postgres(
        Step::Receive,
        Side::New,
        &[Step::Drain],
        Trouble::Abort,
        Some(Column::DatabasePromotion),
        "the target has flushed everything up to there",
    ),
    redis(
        Step::Pause,
        Side::Old,
        &[Step::Hold, Step::HoldRoute],
        Trouble::WithoutOldSide,
        Some(Column::RedisFailover),
        "the old master holds writes and says its offset",
    ),
    redis(
        Step::AskMaster,
        Side::New,
        &[Step::Pause],
        Trouble::Abort,
        Some(Column::RedisFailover),
        "a master whose agent is silent is asked itself; one that answers is not left behind",
    ),
    redis(
        Step::CatchUp,
        Side::New,
        &[Step::AskMaster],
        Trouble::Abort,
        Some(Column::RedisFailover),
        "the target has the same offset",
    ),
    redis(
        Step::Fence,
        Side::Old,
        &[Step::AskMaster],
        Trouble::WithoutOldSide,
        Some(Column::RedisFailover),
        "the old master refuses writes without a deadline",
    ),
    redis(
        Step::CatchUpFenced,
        Side::New,
        &[Step::CatchUp, Step::Fence],
        Trouble::Abort,
        Some(Column::RedisFailover),
        "the target has the offset at which the fence fell",
    ),
    stack(
        Step::Swap,
        Side::Record,
        &[Step::Receive, Step::CatchUpFenced],
        Trouble::Abort,
        None,
        "the compare-and-swap moves the writer: the point of no return",
    ),
    // The switch, forward only.
    postgres(
        Step::Stop,
        Side::Old,
        &[Step::Swap],
        Trouble::WithoutOldSide,
        Some(Column::DatabasePromotion),
        "the old primary ends where the standby has its last record",
    ),
    postgres(
        Step::Promote,
        Side::New,
        &[Step::Stop],
        Trouble::Forward,
        Some(Column::DatabasePromotion),
        "the target becomes primary",
    ),
    redis(
        Step::SentinelFailover,
        Side::New,
        &[Step::Swap],
        Trouble::Forward,
        Some(Column::RedisFailover),
        "Sentinel is told to fail over, on data that is already equal and fenced",
    ),
    redis(
        Step::PromoteRedis,
        Side::New,
        &[Step::Swap, Step::SentinelFailover, Step::RecordBorn],
        Trouble::Forward,
        Some(Column::RedisFailover),
        "the target becomes master and accepts writes",
    ),
    redis(
        Step::Demote,
        Side::Old,
        &[Step::PromoteRedis],
        Trouble::GoOn,
        Some(Column::RedisFailover),
        "the old master follows the new one",
    ),
    redis(
        Step::Announce,
        Side::New,
        &[Step::PromoteRedis, Step::Vote],
        Trouble::GoOn,
        Some(Column::RedisFailover),
        "every Sentinel is told who is master",
    ),
    stack(
        Step::Route,
        Side::Here,
        &[Step::Swap],
        Trouble::GoOn,
        Some(Column::RoutingUpdate),
        "the agents have heard who the writer is",
    ),
    route(
        Step::SwitchRoute,
        &[Step::HoldRoute, Step::Swap],
        Some(Column::RoutingUpdate),
        "the route points at the new writer",
    ),
    route(
        Step::ReleaseRoute,
        &[Step::SwitchRoute, Step::Promote, Step::PromoteRedis],
        Some(Column::Validation),
        "the route lets clients go on, and a statement comes back through it",
    ),
    postgres(
        Step::Validate,
        Side::New,
        &[Step::Promote],
        Trouble::Forward,
        Some(Column::Validation),
        "a real write is made and read back on the new primary",
    ),
    redis(
        Step::ValidateRedis,
        Side::New,
        &[Step::Announce],
        Trouble::Forward,
        Some(Column::Validation),
        "a real write is made and read back on the new master",
    ),
    stack(
        Step::Finish,
        Side::Record,
        &[
            Step::Validate,
            Step::ValidateRedis,
            Step::Demote,
            Step::Announce,
            Step::Route,
            Step::ReleaseRoute,
            Step::Unfence,
            Step::ResumeRoute,
        ],
        Trouble::GoOn,
        None,
        "the operation leaves the record",
    ),
    // The way back, before the point of no return.
    stack(
        Step::RecordAbort,
        Side::Record,
        &[],
        Trouble::GoOn,
        None,
        "the abort is stored before anything is undone",
    ),
    redis(
        Step::Unfence,
        Side::Old,
        &[Step::RecordAbort],
        Trouble::GoOn,
        None,
        "the old master accepts writes again",
    ),
    route(
        Step::ResumeRoute,
        &[Step::HoldRoute, Step::RecordAbort],
        None,
        "the route lets clients go on, to the old writer",
    ),
    // Repairs.
    postgres(
        Step::Start,
        Side::Node,
        &[],
        Trouble::GiveUp,
        None,
        "the writer's own primary is started again, clients kept out",
    ),
    postgres(
        Step::Admit,
        Side::Node,
        &[Step::Start],
        Trouble::GiveUp,
        None,
        "clients are let in, once commits are seen to wait for the member or the record says exposed",
    ),
    redis(
        Step::StartRedis,
        Side::Node,
        &[],
        Trouble::GiveUp,
        None,
        "the writer's own master is started again with the data on its disk",
    ),
    redis(
        Step::RecordBorn,
        Side::Record,
        &[Step::StartRedis],
        Trouble::GiveUp,
        None,
        "the record notes that this datastore holds data from now on",
    ),
    stack(
        Step::RecordArm,
        Side::Record,
        &[],
        Trouble::GiveUp,
        None,
        "the record notes whether the writer may be moved without being asked",
    ),
    postgres(
        Step::RecordLeave,
        Side::Record,
        &[],
        Trouble::GiveUp,
        None,
        "the member is taken out of the takeover set, before PostgreSQL stops waiting for it",
    ),
    postgres(
        Step::Leave,
        Side::Writer,
        &[Step::RecordLeave],
        Trouble::GiveUp,
        None,
        "commits wait for nobody any more",
    ),
    postgres(
        Step::Follow,
        Side::Node,
        &[Step::Leave],
        Trouble::GiveUp,
        None,
        "the node becomes a standby: by streaming, else by rewind, else by base backup",
    ),
    redis(Step::FollowRedis, Side::Node, &[], Trouble::GiveUp, None, "the node becomes a replica"),
    postgres(
        Step::Number,
        Side::Record,
        &[],
        Trouble::GiveUp,
        None,
        "the record gives out the number of a new membership",
    ),
    // First of all, since a stream that begins anew takes many round trips: nobody waits for it yet.
    postgres(
        Step::Rename,
        Side::Node,
        &[Step::Number],
        Trouble::GiveUp,
        None,
        "the standby takes the new name, and streams under it",
    ),
    postgres(
        Step::JoinBegin,
        Side::Writer,
        &[Step::Rename],
        Trouble::GiveUp,
        None,
        "the primary waits for a name that nobody has, a commit is seen waiting, and the name becomes the new one",
    ),
    postgres(
        Step::JoinProve,
        Side::Writer,
        &[Step::JoinBegin],
        Trouble::GiveUp,
        None,
        "the commit came back, and the standby has flushed it",
    ),
    postgres(
        Step::RecordJoin,
        Side::Record,
        &[Step::JoinProve],
        Trouble::GiveUp,
        None,
        "the member is stored in the takeover set: the datastore is protected",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_exactly_one_row_with_a_sentence() {
        for step in Step::ALL {
            let rows: Vec<_> = TABLE.iter().filter(|row| row.step == *step).collect();
            assert_eq!(rows.len(), 1, "rows of {step}");
            assert!(!rows[0].sentence.is_empty(), "sentence of {step}");
        }
    }

    /// Every step that lies behind another, by way of others as well.
    fn behind(step: Step) -> Vec<Step> {
        let mut found: Vec<Step> = row(step).after.to_vec();
        let mut place = 0;
        while place < found.len() {
            found.extend(row(found[place]).after);
            place += 1;
        }
        found
    }

    #[test]
    fn two_steps_on_one_node_of_a_switch_never_run_at_once() {
        // A node's agent has one command under way: a second one would end the first.
        let places = [Side::Old, Side::New];
        let commands =
            |side, scope| TABLE.iter().filter(move |row| row.side == side && row.scope == scope);
        for side in places {
            for scope in [Scope::Each(Postgres), Scope::Each(Redis)] {
                for one in commands(side, scope) {
                    for other in commands(side, scope) {
                        let back = |step| step == Step::Unfence;
                        if one.step == other.step || back(one.step) || back(other.step) {
                            continue;
                        }
                        assert!(
                            behind(one.step).contains(&other.step)
                                || behind(other.step).contains(&one.step),
                            "{} and {} may run at once",
                            one.step,
                            other.step
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_step_waits_only_for_steps_above_it_or_of_the_way_back() {
        for (place, row) in TABLE.iter().enumerate() {
            for before in row.after {
                let above = TABLE.iter().position(|other| other.step == *before).unwrap();
                assert!(
                    above < place
                        || [Step::Unfence, Step::ResumeRoute, Step::RecordBorn].contains(before),
                    "{} after {before}",
                    row.step
                );
            }
        }
    }
}
