//! The target is a running standby, and has replayed nearly all that it received: a promotion
//! replays the rest first, at disk speed.

use crate::observe::{PostgresRole, PostgresView, ProcessState};
use crate::orchestrator::Consent;
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

pub fn check(question: &Question, name: &DatastoreName) -> Vec<Finding> {
    let node = question.new_node(name);
    let Some(view) = question.postgres(&node) else {
        let sentence = format!("nothing is known of {node}");
        return vec![Finding::new("standby-not-running", Level::Fail, Some(name), sentence)];
    };
    let primary = |view: &PostgresView| view.role == Some(PostgresRole::Primary);
    let opened = question.postgres(&question.old_node(name)).is_some_and(primary);
    let accepted = question.consent != Consent::None;
    let back = question.unfinished_move_from_target().filter(|_| accepted && !opened);
    let running = if let (Some(operation), ProcessState::Stopped) = (back, view.process) {
        let sentence = format!(
            "{node} is stopped; it was the writer until {operation}, which has not opened {}",
            question.old_node(name)
        );
        Finding::new("standby-not-running", Level::Warn, Some(name), sentence)
    } else if view.process != ProcessState::Running {
        let state = match view.process {
            ProcessState::NoData => "has no data",
            ProcessState::Unusable => "has data that cannot be used",
            ProcessState::Stopped => "is stopped",
            ProcessState::Starting => "is starting",
            ProcessState::Silent => "does not answer",
            ProcessState::Running => "runs",
        };
        Finding::new("standby-not-running", Level::Fail, Some(name), format!("{node} {state}"))
    } else if view.role == Some(PostgresRole::Standby) {
        Finding::new("standby-not-running", Level::Pass, Some(name), format!("{node} is a standby"))
    } else {
        let sentence = format!("{node} runs, and not as a standby");
        Finding::new("standby-not-running", Level::Fail, Some(name), sentence)
    };
    let most = question.settings.limits.replay_backlog_most;
    let backlog = match (view.flushed, view.replayed) {
        (Some(flushed), Some(replayed)) => {
            let bytes = flushed.ahead_of(replayed);
            let level = if bytes > most && question.writer_serves(name) {
                Level::Fail
            } else {
                Level::Pass
            };
            let sentence =
                format!("{node} has {bytes} bytes received and not replayed, allowed are {most}");
            Finding::new("replay-backlog", level, Some(name), sentence)
        }
        (None, _) | (_, None) => Finding::new(
            "replay-backlog",
            Level::Unknown,
            Some(name),
            format!("the replay position of {node} is not known"),
        ),
    };
    vec![running, backlog]
}
