//! Ends, in the history, for the operations that an earlier run left without one.
//!
//! How they ended is read from the record and from their order, never guessed: what owned the stack
//! last is in the record, and whoever never owned it has touched nothing that belongs to a move.
//! Left out: going on with the operation that owns the stack, which is the core's.

use tier0_core::record::{End, Finished, OperationKind, Record};
use tier0_core::words::OperationId;
use tier0_store::{OperationResult, OperationSummary, StoreHandle};

use crate::driver::wall;

/// Close what is open, not claimed by the record, and older than `until`: what has begun since is this
/// run's own. What repairs left undone the decider begins anew.
pub async fn close_unfinished(store: &StoreHandle, record: &Record, until: &OperationId) {
    let claimed = record.claim.as_ref().map(|claim| &claim.operation);
    let operations = store.operations(200, None).await.unwrap_or_default();
    for operation in &operations {
        let open = operation.result == OperationResult::Running;
        if !open || operation.id >= *until || claimed == Some(&operation.id) {
            continue;
        }
        let closing = Closing::of(operation, &operations, record.finished.as_ref());
        if let Err(error) = store.append(closing.close(operation, record)).await {
            tracing::error!(%error, "an unfinished operation stays open in the history");
        }
    }
}

const CLOSED_LATE: &str = "the orchestrator ended before it wrote down this end; the next one did, \
                           and how long it took is not known";

/// What the history says of an operation whose end nobody wrote there.
#[derive(Debug, PartialEq)]
struct Closing {
    result: OperationResult,
    error: Option<String>,
    code: Option<String>,
    /// It was the last to own the stack.
    was_last_owner: bool,
}

impl Closing {
    /// How `operation` ended, with the history newest first and what the record says of the last
    /// owner of the stack.
    fn of(
        operation: &OperationSummary,
        history: &[OperationSummary],
        last: Option<&Finished>,
    ) -> Closing {
        if let Some(last) = last.filter(|last| last.operation == operation.id) {
            return Closing::by_record(&last.end, operation.kind);
        }
        let restarted = |result, error: &str| Closing {
            result,
            error: Some(error.to_owned()),
            code: Some("orchestrator-restarted".to_owned()),
            was_last_owner: false,
        };
        if operation.kind.moves_writer()
            && last.is_none_or(|last| is_older(last, operation, history))
        {
            // Whoever owns the stack is in the record from then on, as its claim or as the last end.
            return restarted(
                OperationResult::Aborted,
                "the orchestrator ended before this owned the stack: nothing was touched",
            );
        }
        restarted(
            OperationResult::Unknown,
            "the orchestrator ended before this was over, and nothing owned it afterwards",
        )
    }

    fn by_record(end: &End, kind: OperationKind) -> Closing {
        match end {
            End::Succeeded => Closing {
                result: OperationResult::Succeeded,
                error: None,
                code: None,
                was_last_owner: true,
            },
            End::Undone { refusal } => Closing {
                result: match kind.moves_writer() {
                    true => OperationResult::Aborted,
                    false => OperationResult::Failed,
                },
                error: Some(refusal.sentence.clone()),
                code: Some(refusal.code.clone()),
                was_last_owner: true,
            },
        }
    }

    fn close(self, operation: &OperationSummary, record: &Record) -> OperationSummary {
        let mut closed = operation.clone();
        closed.result = self.result;
        closed.finished = Some(wall());
        closed.epoch_after = self.was_last_owner.then_some(record.epoch);
        if let Some(report) = closed.report.as_object_mut() {
            let success = self.result == OperationResult::Succeeded;
            report.insert("success".to_owned(), success.into());
            report.insert("result".to_owned(), self.result.word().into());
            report.insert("error".to_owned(), self.error.into());
            report.insert("code".to_owned(), self.code.into());
            report.insert("remarks".to_owned(), vec![CLOSED_LATE].into());
        }
        closed
    }
}

/// Whether the last owner of the stack was begun before `operation`, as far as the history knows it.
fn is_older(last: &Finished, operation: &OperationSummary, history: &[OperationSummary]) -> bool {
    let place = |id: &OperationId| history.iter().position(|one| one.id == *id);
    match (place(&last.operation), place(&operation.id)) {
        (Some(last), Some(this)) => last > this,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use tier0_core::order::Refusal;
    use tier0_core::words::{Epoch, WallMillis};

    use super::*;

    fn summary(number: u32, kind: OperationKind) -> OperationSummary {
        OperationSummary {
            id: format!("00000000-0000-7000-8000-{number:012}").parse().unwrap(),
            kind,
            from: "region1".parse().unwrap(),
            target: "region2".parse().unwrap(),
            requested_by: "somebody".to_owned(),
            reason: String::new(),
            accepted: WallMillis(1),
            finished: None,
            result: OperationResult::Running,
            epoch_before: Epoch::read(1),
            epoch_after: None,
            total_micros: None,
            report: serde_json::json!({}),
        }
    }

    fn last(operation: &OperationSummary, end: End) -> Finished {
        Finished { operation: operation.id.clone(), end }
    }

    #[test]
    fn a_move_that_never_owned_the_stack_touched_nothing() {
        let history = [
            summary(3, OperationKind::Rejoin),
            summary(2, OperationKind::Switchover),
            summary(1, OperationKind::Failback),
        ];
        let aborted = |last: Option<&Finished>| {
            Closing::of(&history[1], &history, last).result == OperationResult::Aborted
        };
        assert!(aborted(None));
        assert!(aborted(Some(&last(&history[2], End::Succeeded))));
        // Somebody owned the stack after it, or somebody of whom nothing is known.
        let newer = summary(9, OperationKind::Failback);
        assert!(!aborted(Some(&last(&newer, End::Succeeded))));
        let with_newer = [newer.clone(), history[1].clone()];
        let closing = Closing::of(&history[1], &with_newer, Some(&last(&newer, End::Succeeded)));
        assert_eq!(closing.result, OperationResult::Unknown);
        // Of a repair nobody can say how far it was.
        let closing = Closing::of(&history[0], &history, None);
        assert_eq!(closing.result, OperationResult::Unknown);
    }

    #[test]
    fn the_last_owner_ended_as_the_record_says() {
        let history = [summary(1, OperationKind::Switchover)];
        let closing = Closing::of(&history[0], &history, Some(&last(&history[0], End::Succeeded)));
        assert_eq!((closing.result, closing.was_last_owner), (OperationResult::Succeeded, true));
        let refusal = Refusal::new("receive-failed", "it did not arrive");
        let undone = last(&history[0], End::Undone { refusal });
        let closing = Closing::of(&history[0], &history, Some(&undone));
        assert_eq!(closing.result, OperationResult::Aborted);
        assert_eq!(closing.code.as_deref(), Some("receive-failed"));
    }
}
