//! The target has room to go on writing.

use crate::observe::NodeView;
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let node = question.new_node(name);
    let least = question.settings.limits.disk_free_least;
    let free = question.view(&node).and_then(NodeView::disk_free);
    let megabytes = |bytes: u64| bytes / 1_000_000;
    match free {
        None => Finding::new(
            "disk-full",
            Level::Unknown,
            Some(name),
            format!("free space on {node} is not known"),
        ),
        Some(free) if free < least => Finding::new(
            "disk-full",
            Level::Fail,
            Some(name),
            format!(
                "{node} has {} MB free, at least {} MB are needed",
                megabytes(free),
                megabytes(least)
            ),
        )
        .number(megabytes(free) as f64),
        Some(free) => Finding::new(
            "disk-full",
            Level::Pass,
            Some(name),
            format!("{node} has {} MB free", megabytes(free)),
        )
        .number(megabytes(free) as f64),
    }
}
