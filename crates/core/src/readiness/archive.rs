//! Archiving works. A switch does not need it; a restore does, and a failing archive fills the
//! writer's disk.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "archive-failing";

/// A segment that has waited this long is not on its way any more.
const WAITING_WARN_SECONDS: u64 = 60;

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let writer = question.old_node(name);
    let archive = question.postgres(&writer).and_then(|view| view.archive.as_deref());
    let Some(archive) = archive else {
        return finding(Level::Unknown, format!("the archiver of {writer} is not known"));
    };
    // A segment that nobody archives is found by its age, whether or not the archiver reports it.
    if let Some(oldest) = archive.oldest_waiting_seconds.filter(|age| *age >= WAITING_WARN_SECONDS)
    {
        return finding(
            Level::Warn,
            format!(
                "{} segments of {writer} wait to be archived, the oldest for {oldest} s; the \
                 archiver has failed {} times",
                archive.waiting, archive.failed
            ),
        )
        .number(oldest as f64);
    }
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
