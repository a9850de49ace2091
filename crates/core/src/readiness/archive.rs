//! Archiving works. A switch does not need it; a restore does, and a failing archive fills the
//! writer's disk.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "archive-failing";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let writer = question.old_node(name);
    let archive = question.postgres(&writer).and_then(|view| view.archive.as_ref());
    let Some(archive) = archive else {
        return finding(Level::Unknown, format!("the archiver of {writer} is not known"));
    };
    match (archive.last_failed_seconds, archive.last_archived_seconds) {
        (Some(failed), archived) if archived.is_none_or(|archived| failed < archived) => finding(
            Level::Warn,
            format!(
                "the archiver of {writer} has failed {} times, last {failed} s ago, and has not \
                 succeeded since",
                archive.failed
            ),
        ),
        (_, Some(archived)) => {
            finding(Level::Pass, format!("the last segment was archived {archived} s ago"))
        }
        (_, None) => finding(Level::Pass, "nothing had to be archived yet".to_owned()),
    }
}
