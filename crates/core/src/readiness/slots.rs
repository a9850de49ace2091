//! The slots that nodes keep for each other are there and hold back only a bounded amount of WAL;
//! and no logical slot would be left behind.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "slots";

/// WAL retained for a slot that nobody reads from which on it is worth looking at, in bytes.
const RETAINED_WARN: u64 = 1_000_000_000;

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let writer = question.old_node(name);
    let Some(view) = question.postgres(&writer).filter(|view| view.role.is_some()) else {
        return finding(Level::Unknown, format!("the slots of {writer} are not known"));
    };
    let wanted = question.new_node(name).slot_name();
    let retained = format!("{} MB of WAL are retained for nobody", view.retained_wal / 1_000_000);
    let finding =
        |level, sentence| finding(level, sentence).number((view.retained_wal / 1_000_000) as f64);
    match view.slots.get(&wanted).map(String::as_str) {
        None => finding(
            Level::Warn,
            format!("{writer} has no slot {wanted}: WAL that the standby lacks may be removed"),
        ),
        Some("lost") => finding(
            Level::Warn,
            format!("slot {wanted} of {writer} is lost: the standby may have to be rebuilt"),
        ),
        Some(_) if view.retained_wal > RETAINED_WARN => finding(Level::Warn, retained),
        Some(_) if !view.logical_slots.is_empty() => finding(
            Level::Warn,
            format!(
                "logical slots of {writer} stay behind in a move: {}; who reads them loses what \
                 was written until they are made anew",
                view.logical_slots.join(", ")
            ),
        ),
        Some(status) => finding(Level::Pass, format!("slot {wanted} is {status}; {retained}")),
    }
}
