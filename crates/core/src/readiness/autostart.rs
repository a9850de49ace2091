//! Nothing but the agent would start a server. A primary that comes back by itself after its region
//! was left would be a second one, and clients would be let in before anybody has looked (P8).

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "autostart";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let nodes = [question.old_node(name), question.new_node(name)];
    let mut others = Vec::new();
    let mut unknown = Vec::new();
    for node in &nodes {
        let host = question.host(node.region());
        match host.and_then(|host| host.autostart.get(node)) {
            Some(sentences) => {
                others.extend(sentences.iter().map(|sentence| format!("{node}: {sentence}")));
            }
            None => unknown.push(node.to_string()),
        }
    }
    let count = others.len() as f64;
    if !others.is_empty() {
        // When the old region is gone this must not keep anybody from leaving it.
        let level = if question.writer_serves(name) { Level::Fail } else { Level::Warn };
        return finding(level, others.join("; ")).number(count);
    }
    if !unknown.is_empty() {
        let sentence = format!("what else could start {} is not known", unknown.join(" and "));
        return finding(Level::Unknown, sentence);
    }
    finding(Level::Pass, "only the agents start its servers".to_owned()).number(count)
}
