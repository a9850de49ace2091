//! The newest backup is not too old, where the configuration says how to find out. Replication is no
//! backup: what is deleted by mistake is deleted on both sides within milliseconds.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "backup-age";

pub fn check(question: &Question, name: &DatastoreName) -> Option<Finding> {
    let finding = |level, sentence| Some(Finding::new(CODE, level, Some(name), sentence));
    let nodes = [question.old_node(name), question.new_node(name)];
    let views: Vec<_> = nodes
        .iter()
        .filter_map(|node| Some((node, question.host(node.region())?.backups.get(node)?)))
        .collect();
    // Backups are taken on either side, so the newest counts.
    let newest = views.iter().filter_map(|(node, view)| Some((view.age_seconds?, *node)));
    let Some((age, node)) = newest.min_by_key(|(age, _)| *age) else {
        let (node, view) = views.first()?;
        let why = view.error.as_deref().unwrap_or("it has not been asked for yet");
        return finding(Level::Unknown, format!("the newest backup of {node} is not known: {why}"));
    };
    let most = question.settings.limits.backup_age_most.as_secs();
    let hours = |seconds: u64| seconds as f64 / 3600.0;
    let sentence = format!("the newest backup, by {node}, is {:.1} h old", hours(age));
    let (level, sentence) = if age > most {
        (Level::Warn, format!("{sentence}, it should be at most {:.0} h", hours(most)))
    } else {
        (Level::Pass, sentence)
    };
    finding(level, sentence).map(|finding| finding.number(hours(age)))
}
