//! What "acknowledged" rests on, at both ends: a commit waits for the standby's flush, and a flush
//! is one (P4). Anything that weakens it is named.

use crate::observe::PostgresView;
use crate::words::{DatastoreName, NodeId};

use super::{Finding, Level, Question};

const CODE: &str = "durability-weakened";

/// Settings that must have these values on every node, and what their loss means.
const NEEDED: [(&str, &str, &str); 4] = [
    ("fsync", "on", "a crash of the machine may lose what was acknowledged"),
    ("full_page_writes", "on", "a crash may tear pages, and a rewind is not possible"),
    ("synchronous_commit", "on", "commits do not wait for the standby"),
    ("restart_after_crash", "off", "after a crash clients may read what no standby has"),
];

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let nodes = [question.old_node(name), question.new_node(name)];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for node in &nodes {
        let Some(view) = question.postgres(node).filter(|view| !view.settings.is_empty()) else {
            continue;
        };
        seen += 1;
        wrong.extend(weaknesses(node, view));
    }
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    if !wrong.is_empty() {
        return finding(Level::Warn, wrong.join("; "));
    }
    if seen < nodes.len() {
        return finding(
            Level::Unknown,
            format!("the settings of {} of 2 nodes are not known", nodes.len() - seen),
        );
    }
    finding(Level::Pass, "commits wait for a flush on both nodes, in every role".to_owned())
}

fn weaknesses(node: &NodeId, view: &PostgresView) -> Vec<String> {
    let mut wrong = Vec::new();
    for (setting, needed, meaning) in NEEDED {
        let Some(value) = view.settings.get(setting) else { continue };
        let stronger = setting == "synchronous_commit" && value == "remote_apply";
        if value != needed && !stronger {
            wrong.push(format!("{setting} = {value} on {node}: {meaning}"));
        }
    }
    if let Some(overrides) = view.settings.get("tier0.synchronous_commit_overrides")
        && !overrides.is_empty()
    {
        wrong.push(format!(
            "{overrides} on {node}: their commits are acknowledged without the standby"
        ));
    }
    wrong
}
