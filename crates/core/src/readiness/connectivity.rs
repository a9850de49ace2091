//! Each side reaches the other's server. The stream shows only one direction; after the move the old
//! side has to reach the new one, or it cannot rejoin and the stack stays exposed.

use crate::observe::Knock;
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "peer-unreachable";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let (old, new) = (question.old_node(name), question.new_node(name));
    let mut broken = Vec::new();
    let mut unknown = Vec::new();
    for (from, to) in [(old.region(), &new), (new.region(), &old)] {
        let reach = question.report(from).and_then(|report| report.peers.get(to));
        let Some(reach) = reach else {
            unknown.push(format!("whether {from} reaches {to} is not known"));
            continue;
        };
        let seconds = reach.unanswered_ms as f64 / 1000.0;
        let why = match reach.newest {
            Knock::Answered => continue,
            Knock::Refused => format!("connections have been refused or cut for {seconds:.1} s"),
            Knock::Silent => format!("nothing has come back for {seconds:.1} s"),
        };
        broken.push(format!("{from} does not reach {to}, and could not follow it: {why}"));
    }
    let reached = (2 - broken.len() - unknown.len()) as f64;
    if !broken.is_empty() {
        broken.extend(unknown);
        return finding(Level::Warn, broken.join("; ")).number(reached);
    }
    if !unknown.is_empty() {
        return finding(Level::Unknown, unknown.join("; "));
    }
    finding(Level::Pass, format!("{old} and {new} are reached from the other side")).number(reached)
}
