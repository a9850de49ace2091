//! What else could start a server behind the agent's back on this host, as the adapters find it.

use std::path::Path;

use tier0_config::Stack;
use tier0_core::record::DatastoreKind;

use crate::finding::{Finding, Level, operator};

/// Judge this host.
pub fn judge(units: &Path, stack: &Stack) -> Vec<Finding> {
    let mut findings = Vec::new();
    for datastore in &stack.datastores {
        for node in datastore.nodes.iter().filter(|node| node.data_directory.exists()) {
            let subject = format!("{}.{}", datastore.name, node.region);
            let others = match datastore.kind {
                DatastoreKind::Postgres => tier0_postgres::autostart(node, units),
                DatastoreKind::Redis => tier0_redis::autostart(node, units),
            };
            if others.is_empty() {
                let sentence = "nothing on this host starts it at boot";
                findings.push(Finding::new(subject, "autostart", Level::Ok, sentence));
                continue;
            }
            for other in others {
                findings.push(
                    Finding::new(subject.clone(), "autostart", Level::Missing, other.sentence)
                        .by(operator([other.remedy])),
                );
            }
        }
    }
    findings
}
