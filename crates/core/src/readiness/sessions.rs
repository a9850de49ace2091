//! What a switch would cost the clients that are connected now: the stop of the old primary ends
//! their sessions, and whatever is open in them is rolled back.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "sessions-ended";

/// An open transaction older than this is worth asking about before it is rolled back.
const LONG_MS: u64 = 1_000;

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let writer = question.old_node(name);
    let Some(view) = question.postgres(&writer).filter(|view| view.role.is_some()) else {
        return finding(Level::Unknown, format!("the sessions of {writer} are not known"));
    };
    let sessions = view.sessions;
    match view.longest_transaction_ms {
        Some(longest) if longest >= LONG_MS => finding(
            Level::Warn,
            format!(
                "{sessions} sessions would end, and a transaction that has been open for {:.1} s \
                 would be rolled back",
                longest as f64 / 1000.0
            ),
        ),
        Some(_) | None => finding(Level::Pass, format!("{sessions} sessions would end")),
    }
}
