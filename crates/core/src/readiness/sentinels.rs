//! Sentinels know the datastore as it is: both sides reach them, and they name the master (asked one
//! by one; CKQUORUM counts what one of them believes of the others). Where a switch
//! is done by `SENTINEL FAILOVER` they must also know a replica, or they answer NOGOODSLAVE after
//! the point of no return; they learn of a new one within ten seconds.

use crate::observe::Announce;
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "sentinels-disagree";

pub fn check(question: &Question, name: &DatastoreName) -> Option<Finding> {
    let shape = question.settings.shape.datastores.get(name)?;
    // Asked by the target's agent: it is the one that will tell them.
    let view = question.redis(&question.new_node(name))?;
    let finding = |level, sentence| Some(Finding::new(CODE, level, Some(name), sentence));
    let all = view.sentinels.len();
    if all == 0 {
        return finding(Level::Unknown, "no Sentinel has been asked yet".to_owned());
    }
    let master = shape.addresses.get(&question.record.writer);
    let agree = view.sentinels.values().filter(|it| it.master.as_ref() == master).count();
    let ready = view
        .sentinels
        .values()
        .filter(|it| it.master.as_ref() == master && it.replicas.is_some_and(|count| count > 0))
        .count();
    let answer = view.sentinels.values().filter(|it| it.error.is_none()).count();
    let mut sentence = format!(
        "{agree} of {all} Sentinels name the master, {ready} know a replica, {answer} answer"
    );
    // Who does not answer, and to whom: a Sentinel that only one side reaches votes for one side.
    let mut out_of_reach = false;
    for node in [question.old_node(name), question.new_node(name)] {
        let Some(view) = question.redis(&node) else { continue };
        let silent: Vec<&str> = view
            .sentinels
            .iter()
            .filter(|(_, it)| it.error.is_some())
            .map(|(address, _)| address.as_str())
            .collect();
        if !silent.is_empty() {
            out_of_reach = true;
            sentence.push_str(&format!("; {} does not reach {}", node.region(), silent.join(", ")));
        }
    }
    let level = match shape.announce {
        Announce::Documented if ready < answer || ready * 2 <= all => Level::Fail,
        Announce::Documented | Announce::Vote if agree * 2 <= all => Level::Warn,
        Announce::Documented | Announce::Vote if agree < all => Level::Warn,
        Announce::Documented | Announce::Vote if out_of_reach => Level::Warn,
        Announce::Documented | Announce::Vote => Level::Pass,
    };
    finding(level, sentence).map(|finding| finding.number(agree as f64))
}
