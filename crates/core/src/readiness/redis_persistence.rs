//! Both Redis servers keep their data on disk: a Redis never starts as master over lost data (D3), so
//! one that keeps nothing cannot be started again at all.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "redis-persistence";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let nodes = [question.old_node(name), question.new_node(name)];
    let mut wrong = Vec::new();
    let mut unknown = Vec::new();
    for node in &nodes {
        let Some(kept) = question.redis(node).and_then(|view| view.persistence) else {
            unknown.push(node.to_string());
            continue;
        };
        if !kept.append_only {
            wrong.push(format!(
                "appendonly is off on {node}: a crash loses what the last snapshot lacks"
            ));
        } else if !kept.append_ok {
            wrong.push(format!("the last write to the append-only file of {node} failed"));
        }
        if !kept.snapshot_ok {
            wrong.push(format!("the last snapshot of {node} failed"));
        }
    }
    if !wrong.is_empty() {
        let count = wrong.len() as f64;
        return finding(Level::Warn, wrong.join("; ")).number(count);
    }
    if !unknown.is_empty() {
        let sentence = format!("how {} keeps its data is not known", unknown.join(" and "));
        return finding(Level::Unknown, sentence);
    }
    finding(Level::Pass, "both write an append-only file".to_owned()).number(0.0)
}
