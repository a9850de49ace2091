//! The target replica is in step, or, where the master is gone, was (D3).

use crate::observe::{ProcessState, RedisRole};
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

/// Also said of a link that has only just broken.
pub const CODE: &str = "redis-not-ready";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let node = question.new_node(name);
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let Some(view) = question.redis(&node) else {
        return finding(Level::Fail, format!("nothing is known of {node}"));
    };
    let old = question.redis(&question.old_node(name));
    let opened = old.is_none_or(|view| view.role == Some(RedisRole::Master));
    let back = question.unfinished_move_from_target().filter(|_| !opened);
    let usable = match view.process {
        ProcessState::Stopped => true,
        ProcessState::Running => !view.loading && view.role.is_some(),
        ProcessState::Starting
        | ProcessState::Silent
        | ProcessState::NoData
        | ProcessState::Unusable => false,
    };
    if let (Some(operation), true) = (back, usable) {
        return finding(
            Level::Warn,
            format!(
                "{node} was the master until {operation}, which has not opened {}",
                question.old_node(name)
            ),
        );
    }
    if view.process != ProcessState::Running {
        return finding(Level::Fail, format!("{node} does not run, or does not answer"));
    }
    if view.loading {
        return finding(Level::Fail, format!("{node} is still taking in data"));
    }
    if view.role != Some(RedisRole::Replica) {
        return finding(Level::Fail, format!("{node} runs, and not as a replica"));
    }
    let Some(position) = view.position() else {
        return finding(Level::Fail, format!("{node} does not know its position"));
    };
    let old_runs = question.old_agent_answers()
        && old.is_some_and(|view| view.process == ProcessState::Running);
    if !old_runs {
        return finding(
            Level::Warn,
            format!(
                "the master does not answer; {node} has everything up to {position}, and what the \
                 master acknowledged beyond it would be lost"
            ),
        );
    }
    if !view.link_up {
        return finding(Level::Fail, format!("{node} is not linked to its master"));
    }
    finding(Level::Pass, format!("{node} is linked, at {position}"))
}
