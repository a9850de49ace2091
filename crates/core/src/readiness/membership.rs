//! The target is in the takeover set of the record: it is proven to hold every acknowledged write
//! (P3). Nothing else makes a promotion safe.

use crate::guard::Guard;
use crate::orchestrator::Consent;
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "not-in-takeover-set";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let node = question.new_node(name);
    let Some(datastore) = question.record.datastores.get(name) else {
        let sentence = format!("the record does not know {name}");
        return Finding::new(CODE, Level::Fail, Some(name), sentence);
    };
    if let Some(member) = datastore.takeover.get(&node) {
        let sentence = format!("{node} is in the takeover set as {}", member.name);
        return Finding::new(CODE, Level::Pass, Some(name), sentence);
    }
    let here = question.postgres(&node).and_then(|view| view.flushed);
    let old = question.old_node(name);
    let behind = match (here, question.last_flushed(&old)) {
        (Some(here), Some((flushed, _))) if question.old_agent_answers() => {
            format!("is {} bytes behind", flushed.ahead_of(here))
        }
        // What was written after that comes on top: no more is known of a side that is gone.
        (Some(here), Some((flushed, ago))) => format!(
            "was {} bytes behind when {} was last heard, {:.1} s ago",
            flushed.ahead_of(here),
            old.region(),
            ago.as_secs_f64()
        ),
        (None, _) | (_, None) => "is an unknown number of bytes behind".to_owned(),
    };
    let sentence = format!(
        "{node} is not in the takeover set ({}), it {behind}: promoting it could lose \
         acknowledged writes",
        datastore.protection.word()
    );
    match question.consent {
        Consent::None if Guard::MoveNeedsMember.holds() => {
            Finding::new(CODE, Level::Fail, Some(name), sentence)
        }
        Consent::None | Consent::AcceptLoss | Consent::AcceptLossOldSideIsDown => {
            Finding::new(CODE, Level::Warn, Some(name), format!("{sentence}; accepted"))
        }
    }
}
