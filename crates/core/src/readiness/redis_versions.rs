//! Redis versions: the same on both nodes, and one that is tested. An older replica may not be able
//! to read what a newer master writes.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "redis-version";

/// The release that the tests run against.
const TESTED: &str = "7.0";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let version = |node| question.redis(&node).and_then(|view| view.version.as_deref());
    let old = version(question.old_node(name));
    let new = version(question.new_node(name));
    let (Some(old), Some(new)) = (old, new) else {
        return finding(Level::Unknown, "the version of one node is not known".to_owned());
    };
    if old != new {
        return finding(Level::Warn, format!("Redis {old} and {new}"));
    }
    let release = new.rsplit_once('.').map_or(new, |(release, _)| release);
    if release == TESTED {
        finding(Level::Pass, format!("Redis {new}"))
    } else {
        finding(Level::Warn, format!("Redis {new}: tested is {TESTED}"))
    }
}
