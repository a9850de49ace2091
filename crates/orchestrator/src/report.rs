//! From an operation of the core to what the API says of it.

use std::collections::BTreeMap;

use tier0_core::orchestrator::{Activity, Asked, Ended, NearMiss, Now, Progress, Request, Verdict};
use tier0_core::order::Refusal;
use tier0_core::record::{ClaimPhase, OperationKind, Record};
use tier0_core::steps::{SpecificationStep, Step, row};
use tier0_core::words::{Moment, OperationId, Region, WallMillis};
use tier0_wire::{OperationBody, StepBody};

/// The specification's bound, in seconds.
const SPECIFICATION_BOUND: f64 = 5.0;

/// What an operator is answered.
pub enum Answer {
    /// The operation, ended in one way or another.
    Operation(Box<OperationBody>),
    /// Nothing was done.
    Refused {
        /// The id that the request had.
        id: OperationId,
        /// Why.
        refusal: Refusal,
    },
    /// Another orchestrator has taken it over, and will know how it ends.
    GoesOnElsewhere {
        /// The id that the request had.
        id: OperationId,
    },
}

/// An operation as the API shows it.
pub fn body(
    activity: &Activity,
    ended: Option<&Ended>,
    record: Option<&Record>,
    now: &Now,
) -> OperationBody {
    let since = |moment: Moment| micros(moment.since(activity.accepted));
    let timeline: Vec<StepBody> = activity
        .steps
        .iter()
        .filter_map(|state| {
            let (begin, end, outcome) = match &state.progress {
                Progress::Waiting { .. } => return None,
                Progress::Running { since, .. } => (*since, None, "running".to_owned()),
                Progress::Settled { from, to, verdict } => (*from, Some(*to), verdict.sentence()),
            };
            Some(StepBody {
                step: state.key.step.id().to_owned(),
                datastore: state.key.datastore.as_ref().map(ToString::to_string),
                route: state.key.route.as_ref().map(ToString::to_string),
                begin_ms: since(begin),
                end_ms: end.map(since),
                outcome,
                attempts: state.attempts,
            })
        })
        .collect();
    let total = now.moment.since(activity.accepted).as_secs_f64();
    let success = ended == Some(&Ended::Succeeded);
    let (error, code) = match ended {
        None | Some(Ended::Succeeded) => (None, None),
        Some(ended) => (Some(sentence(ended)), code(ended)),
    };
    let swapped_at = activity.steps.iter().find_map(|state| match &state.progress {
        Progress::Settled { to, verdict: Verdict::Done { .. }, .. }
            if state.key.step == Step::Swap =>
        {
            Some(since(*to))
        }
        Progress::Settled { .. } | Progress::Waiting { .. } | Progress::Running { .. } => None,
    });
    let mut remarks: Vec<String> = activity
        .without_old
        .iter()
        .map(|(name, why)| format!("{name} went on without its old side: {why}"))
        .collect();
    remarks.extend(activity.accepted_risks.iter().map(|risk| format!("loss was accepted: {risk}")));
    let stops: Vec<bool> = activity
        .facts
        .values()
        .filter(|facts| facts.member.is_some() || facts.old_confirmed_stopped)
        .map(|facts| facts.old_confirmed_stopped)
        .collect();
    let moved = activity.kind.moves_writer() && activity.phase == ClaimPhase::After;
    let strict_reads = moved.then(|| stops.iter().all(|stopped| *stopped) && !stops.is_empty());
    if strict_reads == Some(false) {
        remarks.push(
            "an old PostgreSQL server is not confirmed stopped: sessions that are still open there \
             may read old data until it is (its commits are not acknowledged)"
                .to_owned(),
        );
    }
    let ended_sessions: u32 = activity.facts.values().map(|facts| facts.sessions_ended).sum();
    let in_transaction: u32 = activity.facts.values().map(|facts| facts.ended_in_transaction).sum();
    match (ended_sessions, in_transaction) {
        (0, _) => {}
        (all, 0) => remarks.push(format!("the stop ended {all} client sessions")),
        (all, some) => remarks.push(format!(
            "the stop ended {all} client sessions, {some} of them in the middle of a transaction"
        )),
    }
    for (name, facts) in &activity.facts {
        if let Some(bytes) = facts.diverged_bytes.filter(|bytes| *bytes > 0) {
            remarks.push(format!("{name}: {bytes} bytes had diverged and were kept"));
        }
    }
    OperationBody {
        success,
        target_region: activity.target.to_string(),
        total_failover_time: round(total),
        tier0_compliant: success && total < SPECIFICATION_BOUND,
        steps: columns(activity),
        timestamp: timestamp(now.wall),
        error,
        code,
        operation_id: activity.id.to_string(),
        kind: activity.kind.to_string(),
        result: word(ended).to_owned(),
        from_region: activity.from.to_string(),
        node: activity.node.as_ref().map(ToString::to_string),
        epoch: record.map(|record| record.epoch.number()),
        point_of_no_return_ms: swapped_at,
        requested_by: activity.by.clone(),
        reason: activity.reason.clone(),
        strict_reads,
        exceptions: activity
            .exceptions
            .iter()
            .map(|(name, why)| (name.to_string(), why.clone()))
            .collect(),
        remarks,
        timeline,
    }
}

/// What kind of operation was asked for, and where to.
pub fn asked(what: &Asked, record: &Record) -> (OperationKind, Region) {
    match what {
        Asked::Move { target, .. } => (OperationKind::Switchover, target.clone()),
        Asked::Rebuild { .. } => (OperationKind::Rebuild, record.writer.clone()),
        Asked::Expose { .. } => (OperationKind::Expose, record.writer.clone()),
        Asked::Arm { .. } => (OperationKind::Arm, record.writer.clone()),
    }
}

/// A request that was refused before it became an operation.
pub fn refused_body(
    request: &Request,
    refusal: &Refusal,
    record: &Record,
    now: &Now,
) -> OperationBody {
    let (kind, target) = asked(&request.what, record);
    let node = match &request.what {
        Asked::Rebuild { node } => Some(node.to_string()),
        Asked::Move { .. } | Asked::Expose { .. } | Asked::Arm { .. } => None,
    };
    OperationBody {
        kind: kind.to_string(),
        node,
        requested_by: request.by.clone(),
        reason: request.reason.clone(),
        ..nothing_done(&request.id, refusal, record, &target, now)
    }
}

/// A move of the writer that nobody asked for and that a row held back.
pub fn near_miss_body(near_miss: &NearMiss, record: &Record, now: &Now) -> OperationBody {
    let refusal = Refusal::new("held-back", near_miss.sentence.clone());
    OperationBody {
        kind: OperationKind::Failover.to_string(),
        requested_by: format!("decider row {}", near_miss.row),
        ..nothing_done(&near_miss.id, &refusal, record, &near_miss.target, now)
    }
}

fn nothing_done(
    id: &OperationId,
    refusal: &Refusal,
    record: &Record,
    target: &Region,
    now: &Now,
) -> OperationBody {
    OperationBody {
        success: false,
        target_region: target.to_string(),
        total_failover_time: 0.0,
        tier0_compliant: false,
        steps: BTreeMap::new(),
        timestamp: timestamp(now.wall),
        error: Some(refusal.sentence.clone()),
        code: Some(refusal.code.clone()),
        operation_id: id.to_string(),
        kind: String::new(),
        result: "refused".to_owned(),
        from_region: record.writer.to_string(),
        node: None,
        epoch: Some(record.epoch.number()),
        point_of_no_return_ms: None,
        requested_by: String::new(),
        reason: String::new(),
        strict_reads: None,
        exceptions: BTreeMap::new(),
        remarks: Vec::new(),
        timeline: Vec::new(),
    }
}

/// Seconds under each of the specification's names: from the first begin to the last end of the
/// steps counted there. They overlap, since steps run in parallel.
fn columns(activity: &Activity) -> BTreeMap<String, f64> {
    let mut spans: BTreeMap<SpecificationStep, (Moment, Moment)> = BTreeMap::new();
    for state in &activity.steps {
        let Some(column) = row(state.key.step).counts_as else { continue };
        let Progress::Settled { from, to, verdict } = &state.progress else { continue };
        if matches!(verdict, Verdict::Skipped { .. }) {
            continue;
        }
        let span = spans.entry(column).or_insert((*from, *to));
        span.0 = span.0.min(*from);
        span.1 = span.1.max(*to);
    }
    spans
        .into_iter()
        .map(|(column, (from, to))| (column.id().to_owned(), round(to.since(from).as_secs_f64())))
        .collect()
}

/// How it ended, in one sentence.
pub fn sentence(ended: &Ended) -> String {
    match ended {
        Ended::Succeeded => "everything is as it was asked".to_owned(),
        Ended::WithExceptions { exceptions } => {
            let parts: Vec<String> =
                exceptions.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            format!("the writer moved, and these stay closed and are retried: {}", parts.join("; "))
        }
        Ended::Refused { refusal } => refusal.sentence.clone(),
        Ended::Aborted { refusal } => {
            format!("undone, the old side is the writer: {}", refusal.sentence)
        }
        Ended::Failed { why } => why.clone(),
        Ended::Unknown { why } => format!("nobody knows how far it is: {why}"),
    }
}

fn code(ended: &Ended) -> Option<String> {
    match ended {
        Ended::Succeeded => None,
        Ended::WithExceptions { .. } => Some("done-with-exceptions".to_owned()),
        Ended::Refused { refusal } | Ended::Aborted { refusal } => Some(refusal.code.clone()),
        Ended::Failed { .. } => Some("failed".to_owned()),
        Ended::Unknown { .. } => Some("unknown".to_owned()),
    }
}

fn word(ended: Option<&Ended>) -> &'static str {
    match ended {
        None => "running",
        Some(Ended::Succeeded) => "succeeded",
        Some(Ended::WithExceptions { .. }) => "done-with-exceptions",
        Some(Ended::Refused { .. }) => "refused",
        Some(Ended::Aborted { .. }) => "aborted",
        Some(Ended::Failed { .. }) => "failed",
        Some(Ended::Unknown { .. }) => "unknown",
    }
}

/// Wall-clock time as RFC 3339.
pub fn timestamp(wall: WallMillis) -> String {
    jiff::Timestamp::from_millisecond(wall.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn round(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn micros(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
