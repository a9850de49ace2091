//! What a check found, for people and for programs.

use serde::Serialize;

use super::WritePath;

/// How many ids a text names before it says how many more there are.
const NAMED: usize = 5;

/// What was found on one path in one datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathCheck {
    /// Which path.
    pub path: WritePath,
    /// Which datastore.
    pub datastore: String,
    /// Where it was read back.
    pub read_from: String,
    /// Acknowledged ids that were looked for.
    pub checked: u64,
    /// Acknowledged ids that are not there.
    pub missing: Vec<String>,
    /// Ids without an answer that are there.
    pub unknown_found: u64,
    /// Ids without an answer that are not there.
    pub unknown_absent: u64,
    /// Ids that are there more than once.
    pub duplicates: Vec<String>,
    /// Keys that Redis threw away for want of memory.
    pub evicted: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// One for each path and datastore of the ledger.
    pub paths: Vec<PathCheck>,
}

impl CheckReport {
    /// Acknowledged ids that were looked for, in PostgreSQL or in Redis.
    pub fn checked(&self, paths: &[WritePath]) -> u64 {
        self.of(paths).map(|check| check.checked).sum()
    }

    /// Every acknowledged id that is not there.
    pub fn missing<'a>(&'a self, paths: &'a [WritePath]) -> Vec<&'a str> {
        self.of(paths).flat_map(|check| &check.missing).map(String::as_str).collect()
    }

    /// Ids that are there more than once.
    pub fn duplicates(&self) -> Vec<&str> {
        self.paths.iter().flat_map(|check| &check.duplicates).map(String::as_str).collect()
    }

    /// Keys that Redis threw away. All paths of a datastore share the count.
    pub fn evicted(&self) -> u64 {
        let mut by_datastore = std::collections::BTreeMap::new();
        for check in &self.paths {
            by_datastore.insert(&check.datastore, check.evicted);
        }
        by_datastore.values().sum()
    }

    fn of<'a>(&'a self, paths: &'a [WritePath]) -> impl Iterator<Item = &'a PathCheck> {
        self.paths.iter().filter(|check| paths.contains(&check.path))
    }

    /// The report as lines for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.paths {
            text.push_str(&format!(
                "{:<16} {:<8} {:>7} acknowledged, {} missing, {} twice, {} unknown ({} there), \
                 {} evicted; read from {}\n",
                check.path.name(),
                check.datastore,
                check.checked,
                check.missing.len(),
                check.duplicates.len(),
                check.unknown_found + check.unknown_absent,
                check.unknown_found,
                check.evicted,
                check.read_from,
            ));
            for (what, ids) in [("missing", &check.missing), ("twice", &check.duplicates)] {
                if !ids.is_empty() {
                    text.push_str(&format!("  {what}: {}\n", name_some(ids)));
                }
            }
        }
        text
    }
}

/// The first ids, and how many more there are.
pub fn name_some(ids: &[String]) -> String {
    let mut text = ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > NAMED {
        text.push_str(&format!(" and {} more", ids.len() - NAMED));
    }
    text
}
