//! Both nodes are copies of one cluster, on one timeline.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "other-cluster";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let identity = |node| {
        let view = question.postgres(&node)?;
        Some((view.system.clone()?, view.timeline?))
    };
    let (old, new) = (identity(question.old_node(name)), identity(question.new_node(name)));
    match (old, new) {
        (Some((system, _)), Some((other, _))) if system != other => finding(
            Level::Fail,
            format!("the target holds cluster {other}, the writer cluster {system}"),
        ),
        (Some((_, timeline)), Some((_, other))) if timeline != other => finding(
            Level::Warn,
            format!("the target is on timeline {other}, the writer on timeline {timeline}"),
        ),
        (Some((system, timeline)), Some(_)) => {
            finding(Level::Pass, format!("both hold cluster {system} on timeline {timeline}"))
        }
        (None, _) | (_, None) => {
            finding(Level::Unknown, "the cluster of one node is not known".to_owned())
        }
    }
}
