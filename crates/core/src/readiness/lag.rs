//! The target has replayed what the writer has flushed, or nearly. A promotion replays the rest
//! first, so lag is outage. It never stands in the way when the old side is gone: then it is what
//! it is, and a proven standby loses nothing by it.

use std::time::Duration;

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "replication-lag";

/// From here on it is worth looking at; the specification's pre-failover checklist.
const WARN_FROM: Duration = Duration::from_secs(1);
/// Beyond this a commanded switch is refused; the specification's health check.
const REFUSE_BEYOND: Duration = Duration::from_secs(5);

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let node = question.new_node(name);
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let replayed = question.postgres(&node).and_then(|view| view.replayed);
    let lag = replayed.and_then(|replayed| question.lag.of(name, replayed, question.now));
    let Some(lag) = lag else {
        return finding(Level::Unknown, format!("how far {node} is behind is not known"));
    };
    let sentence = format!("{node} is {:.1} s behind", lag.as_secs_f64());
    let finding = |level, sentence| finding(level, sentence).number(lag.as_secs_f64());
    if lag > REFUSE_BEYOND && question.writer_serves(name) {
        finding(Level::Fail, format!("{sentence}, allowed are {} s", REFUSE_BEYOND.as_secs()))
    } else if lag >= WARN_FROM {
        finding(Level::Warn, sentence)
    } else {
        finding(Level::Pass, sentence)
    }
}
