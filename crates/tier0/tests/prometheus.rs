//! The rules, the configuration and the dashboard under `deploy`, by themselves: `promtool` accepts
//! and tries them, what they ask for exists, and the page lists every alert.
//!
//! That a real Prometheus has a sample for each query is shown by `whole_stack/monitoring.rs`.
#![allow(clippy::unwrap_used, non_snake_case)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const RULES: &str = "deploy/prometheus/tier0.rules.yml";
const TESTS: &str = "deploy/prometheus/tier0.rules.test.yml";

#[test]
fn promtool__accepts_the_rules_and_they_do_what_their_tests_say() {
    for arguments in [
        ["check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml"].as_slice(),
        ["check", "rules", RULES].as_slice(),
        ["test", "rules", TESTS].as_slice(),
    ] {
        let output =
            Command::new("promtool").args(arguments).current_dir(root()).output().unwrap_or_else(
                |error| panic!("promtool: {error}; `scripts/setup tests` installs it"),
            );
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
        assert!(said.contains("SUCCESS"), "promtool {arguments:?}: {said}");
    }
}

/// What follows a key on the lines of a YAML file.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn alerts__each_fires_in_a_test_stays_quiet_in_another_and_is_on_the_page() {
    let (rules, tests, page) = (read(RULES), read(TESTS), read("docs/monitoring.md"));
    let alerts = values(&rules, "alert:");
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname: {alert}, eval_time")), "{alert}: no quiet day");
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert}: no bad day");
        assert!(page.contains(&format!("| `{alert}` |")), "docs/monitoring.md lacks {alert}");
    }
    let listed = page.lines().filter(|line| line.starts_with("| `Tier0")).count();
    assert_eq!(listed, alerts.len(), "docs/monitoring.md lists an alert that does not exist");
    let severities = page.matches(" | page |").count();
    assert_eq!(severities, rules.matches("severity: page }").count());
    for runbook in values(&rules, "runbook:") {
        let (path, anchor) = runbook.split_once('#').unwrap_or((runbook, ""));
        let heading = |line: &str| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|one| one.is_alphanumeric() || " -".contains(*one));
            kept.map(|one| if one == ' ' { '-' } else { one }).collect::<String>()
        };
        let found = read(path).lines().any(|line| line.starts_with('#') && heading(line) == anchor);
        assert!(anchor.is_empty() || found, "{runbook}: there is no such heading");
    }
}

/// Every name that the orchestrator's and the backend's metrics have in Prometheus.
fn names() -> BTreeSet<String> {
    let page = read("docs/monitoring.md");
    let rules = read(RULES);
    let first_column = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut names: BTreeSet<String> = first_column.map(str::to_owned).collect();
    names.extend(values(&rules, "record:").into_iter().map(str::to_owned));
    for end in ["bucket", "sum", "count"] {
        names.insert(format!("tier0_failover_seconds_{end}"));
    }
    names
}

/// The names of metrics in an expression.
fn asked(expression: &str) -> Vec<String> {
    let word = |one: char| one.is_ascii_alphanumeric() || "_:".contains(one);
    expression
        .split(|one: char| !word(one))
        .filter(|word| {
            ["tier0_", "tier0:", "pg_", "failover_"].iter().any(|begin| word.starts_with(begin))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn names__rules_page_and_dashboard_ask_only_for_what_exists() {
    let known = names();
    let mut places: Vec<(String, String)> = Vec::new();
    let rules = read(RULES);
    for part in rules.split("expr:").skip(1) {
        let end = ["for:", "labels:", "- record:", "- alert:", "- name:"];
        let expression = end.iter().fold(part, |part, end| part.split(end).next().unwrap());
        places.push((RULES.to_owned(), expression.to_owned()));
    }
    let page = read("docs/monitoring.md");
    for part in page.split("\n```promql\n").skip(1) {
        let block = part.split("\n```").next().unwrap();
        places.push(("docs/monitoring.md".to_owned(), block.to_owned()));
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tier0.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            places.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    let mut used = BTreeSet::new();
    for (place, expression) in &places {
        for name in asked(expression) {
            assert!(known.contains(&name), "{place}: there is no metric {name}");
            used.insert(name);
        }
    }
    assert!(used.len() > 25, "the search for names is broken: {used:?}");
    // Panels lie beside each other, each with a number of its own.
    let numbers: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(numbers.len(), panels.len());
    for panel in panels {
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{place}");
    }
}
