//! No password is about to expire. An expired one of the replication role lets the stream go on
//! until it breaks, and then no standby comes back.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "credential-expires";

/// Two weeks: time to change a password on two sides without haste.
const WARN_BELOW_SECONDS: i64 = 14 * 86_400;

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let writer = question.old_node(name);
    let Some(view) = question.postgres(&writer).filter(|view| view.role.is_some()) else {
        return finding(Level::Unknown, format!("the roles of {writer} are not known"));
    };
    let Some(first) = &view.expiring else {
        return finding(Level::Pass, "no password expires".to_owned());
    };
    let days = first.seconds as f64 / 86_400.0;
    let level = if first.seconds < WARN_BELOW_SECONDS { Level::Warn } else { Level::Pass };
    let sentence = if first.seconds < 0 {
        format!("the password of role {} expired {:.1} days ago", first.role, -days)
    } else {
        format!("the password of role {} expires in {days:.1} days", first.role)
    };
    finding(level, sentence).number(days)
}
