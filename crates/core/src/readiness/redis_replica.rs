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
    let old = question.redis(&question.old_node(name));
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
