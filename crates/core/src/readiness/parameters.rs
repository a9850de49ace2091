//! Parameters that a standby must not have lower than its primary: replay stops at the record of
//! such a change, and a promotion then ends the server (`xlogrecovery.c`
//! `RecoveryRequiresIntParameter`).

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "standby-parameters-lower";

const PARAMETERS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let settings = |node| question.postgres(&node).map(|view| &view.settings);
    let (old, new) = (settings(question.old_node(name)), settings(question.new_node(name)));
    let (Some(old), Some(new)) = (old, new) else {
        return finding(Level::Unknown, "the parameters of both nodes are not known".to_owned());
    };
    let number = |settings: &std::collections::BTreeMap<String, String>, parameter: &str| {
        settings.get(parameter).and_then(|text| text.parse::<i64>().ok())
    };
    let mut lower = Vec::new();
    let mut compared = 0;
    for parameter in PARAMETERS {
        let (Some(primary), Some(standby)) = (number(old, parameter), number(new, parameter))
        else {
            continue;
        };
        compared += 1;
        if standby < primary {
            lower.push(format!("{parameter} is {standby}, on the primary it is {primary}"));
        }
    }
    if !lower.is_empty() {
        let sentence = format!(
            "{}: {}; replay stops at such a change and a promotion ends the server",
            question.new_node(name),
            lower.join(", ")
        );
        return finding(Level::Fail, sentence);
    }
    if compared < PARAMETERS.len() {
        let missing = PARAMETERS.len() - compared;
        return finding(Level::Unknown, format!("{missing} parameters could not be compared"));
    }
    finding(Level::Pass, format!("{compared} parameters are not lower on the standby"))
}
