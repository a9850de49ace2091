//! `docs/specification-coverage.md` is complete and true, as far as a program can tell: every section
//! of the specification has its rows, every row a test or a reason, and what a row names exists.
//!
//! Left out: whether a test shows what its row says. Where the row is a setting, it is looked for in
//! the table that the test compares with running servers.
#![allow(clippy::unwrap_used, non_snake_case)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The specification's sections with the number of items that each has there.
const SECTIONS: [(&str, usize); 33] = [
    ("Tier-0 SLA requirements", 6),
    ("Design principles", 5),
    ("Architecture overview", 7),
    ("Primary server", 11),
    ("Replica server", 6),
    ("Access control", 2),
    ("Replication setup", 6),
    ("Monitoring replication", 4),
    ("Redis master", 12),
    ("Redis replica", 4),
    ("Sentinel configuration", 7),
    ("Sentinel startup script", 3),
    ("Monitoring Sentinel", 4),
    ("Architecture", 17),
    ("Health check", 3),
    ("PostgreSQL promotion", 3),
    ("Redis failover", 3),
    ("Write validation", 3),
    ("Failover workflow", 6),
    ("Manual failover test", 9),
    ("Automated failover testing", 4),
    ("Failover time breakdown", 6),
    ("Replication performance", 4),
    ("Monitoring failover health", 10),
    ("Replication lag too high", 5),
    ("Promotion fails", 6),
    ("Redis Sentinel not detecting failover", 7),
    ("Pre-failover checklist", 6),
    ("During failover", 4),
    ("Post-failover validation", 6),
    ("Related documentation", 6),
    // Only headings of others.
    ("Failover objectives", 0),
    ("Troubleshooting failover issues", 0),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

struct Row {
    section: String,
    says: String,
    here: String,
    tests: Vec<String>,
    reason: String,
}

/// What stands between back quotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Where the links in a cell lead, without their anchors.
fn links(cell: &str) -> Vec<String> {
    let rest = cell.split("](").skip(1);
    rest.map(|rest| rest.split([')', '#']).next().unwrap().to_owned()).collect()
}

fn rows() -> Vec<Row> {
    let page = std::fs::read_to_string(root().join("docs/specification-coverage.md")).unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in page.lines() {
        if line.starts_with('#') {
            section = line.trim_start_matches('#').trim().to_owned();
        }
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            continue;
        };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        if cells[0] == "it says" || cells[0].starts_with("---") {
            continue;
        }
        found.push(Row {
            section: section.clone(),
            says: cells[0].to_owned(),
            here: cells[1].to_owned(),
            tests: quoted(cells[2]),
            reason: cells[3].to_owned(),
        });
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The name of a function or a scenario that is declared at the start of this text.
fn declared(text: &str) -> Option<String> {
    let text = text.trim_start();
    let text = text.strip_prefix("async ").unwrap_or(text);
    let rest = text.strip_prefix("fn ")?;
    let end = rest.find(|one: char| !one.is_ascii_alphanumeric() && one != '_')?;
    Some(rest[..end].to_owned())
}

/// Every test as `file::test`.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let mut found = BTreeSet::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if ["main", "mod", "tests"].contains(&stem.as_str()) {
            let parent = path.parent().and_then(Path::file_name).unwrap();
            stem = parent.to_string_lossy().into_owned();
        }
        for mark in ["#[test]", "#[tokio::test]", "#[tokio::test(", "#[test_strategy::proptest"] {
            for part in text.split(mark).skip(1) {
                // Other attributes may follow, each on a line of its own.
                let name = part.lines().take(8).find_map(declared);
                found.extend(name.map(|name| format!("{stem}::{name}")));
            }
        }
        for part in text.split("scenario!(").skip(1) {
            let name = part.split(',').next().unwrap().trim();
            found.insert(format!("{stem}::{name}"));
        }
    }
    found
}

#[test]
fn every_section_of_the_specification_has_all_its_items() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut said = BTreeSet::new();
    for row in rows() {
        *counts.entry(row.section.clone()).or_default() += 1;
        assert!(said.insert((row.section.clone(), row.says.clone())), "twice: {}", row.says);
    }
    for (section, least) in SECTIONS {
        let count = counts.remove(section).unwrap_or(0);
        assert!(count >= least, "{section} has {count} rows, the specification {least} items");
    }
    assert!(counts.is_empty(), "sections that the specification does not have: {counts:?}");
}

#[test]
fn every_row_says_where_and_has_a_test_or_a_reason_that_exist() {
    let known = tests();
    assert!(known.len() > 150, "the search for tests finds only {}: it is broken", known.len());
    let settings = root().join("crates/tier0/tests/whole_stack/settings.rs");
    let settings = std::fs::read_to_string(settings).unwrap();
    let mut wrong = Vec::new();
    for row in rows() {
        let mut found = |what: &str| wrong.push(format!("{}: {}: {what}", row.section, row.says));
        if row.says.is_empty() || row.here.is_empty() {
            found("does not say where");
        }
        if row.tests.is_empty() && row.reason.len() < 10 {
            found("has neither a test nor a reason");
        }
        if row.here.starts_with("not ") && row.reason.is_empty() {
            found("is not there, and nobody says why");
        }
        for test in row.tests.iter().filter(|test| !known.contains(*test)) {
            found(&format!("there is no test {test}"));
        }
        for link in links(&row.here).into_iter().chain(links(&row.reason)) {
            if !root().join("docs").join(&link).exists() {
                found(&format!("there is no {link}"));
            }
        }
        let configured = ["Primary server", "Replica server", "Redis master"];
        if row.tests.iter().any(|test| test.starts_with("settings::settings_are"))
            && configured.contains(&row.section.as_str())
        {
            let says = quoted(&row.says);
            let name = says[0].split(' ').next().unwrap();
            if !settings.contains(&format!("\"{name}\"")) {
                found("the test does not look at this setting");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
