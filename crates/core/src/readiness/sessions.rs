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
    let longest = view.longest_transaction_ms.unwrap_or(0) as f64 / 1000.0;
    let sentence = match view.open_transactions {
        0 => format!("{} sessions would end, none of them in a transaction", view.sessions),
        open => {
            let application = match view.longest_application.as_deref() {
                Some(name) if !name.is_empty() => format!(", app={name}"),
                Some(_) | None => String::new(),
            };
            format!(
                "{} sessions would end, and {open} open transactions be rolled back (longest \
                 {longest:.1} s{application})",
                view.sessions
            )
        }
    };
    let long = view.longest_transaction_ms.is_some_and(|longest| longest >= LONG_MS);
    finding(if long { Level::Warn } else { Level::Pass }, sentence).number(longest)
}
