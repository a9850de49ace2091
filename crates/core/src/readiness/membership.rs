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
    let flushed = |node| question.postgres(&node).and_then(|view| view.flushed);
    let behind = match (flushed(question.old_node(name)), flushed(node.clone())) {
        (Some(old), Some(new)) => format!("{} bytes behind", old.ahead_of(new)),
        (None, _) | (_, None) => "an unknown number of bytes behind".to_owned(),
    };
    let sentence = format!(
        "{node} is not in the takeover set ({}), it is {behind}: promoting it could lose \
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
