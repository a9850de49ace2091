//! Server versions: the same on both nodes, a major version that is tested, and not below the
//! releases in which faults that the safety argument cares about were mended.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "server-version";

/// The major version that the tests run against.
const TESTED_MAJOR: u32 = 15;

/// The lowest minor of each major with the start-up race of synchronous replication and
/// CVE-2026-6475 (pg_basebackup and pg_rewind following links of the origin) mended.
const FLOORS: [(u32, u32); 5] = [(14, 23), (15, 18), (16, 14), (17, 10), (18, 4)];

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let version = |node| question.postgres(&node).and_then(|view| view.version);
    let old = version(question.old_node(name));
    let new = version(question.new_node(name));
    let (Some(old), Some(new)) = (old, new) else {
        return finding(Level::Unknown, "the version of one node is not known".to_owned());
    };
    let text = |version: u32| format!("{}.{}", version / 10_000, version % 10_000);
    let (major, minor) = (new / 10_000, new % 10_000);
    if old / 10_000 != major {
        let sentence = format!("PostgreSQL {} and {} cannot replicate", text(old), text(new));
        return finding(Level::Fail, sentence);
    }
    let floor = FLOORS.iter().find(|(of, _)| *of == major).map(|(_, floor)| *floor);
    match floor {
        Some(floor) if minor < floor || old % 10_000 < floor => finding(
            Level::Warn,
            format!("PostgreSQL {}; {major}.{floor} mends what matters here", text(old.min(new))),
        ),
        Some(_) if old != new => {
            finding(Level::Warn, format!("PostgreSQL {} and {}", text(old), text(new)))
        }
        Some(_) if major == TESTED_MAJOR => {
            finding(Level::Pass, format!("PostgreSQL {}", text(new)))
        }
        Some(_) | None => {
            finding(Level::Warn, format!("PostgreSQL {}: tested is {TESTED_MAJOR}", text(new)))
        }
    }
}
