//! The scenario files of `scenarios/`, played in the simulator: the same files that `tier0 lab
//! scenario` plays on real servers. Left out are those that break what the model servers do not have,
//! and they are named here.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    non_snake_case
)]

mod chaos;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chaos::Parameters;
use chaos::story::{Judged, Story};

/// Stories about a part of a server, a part of its host, or a link that is neither whole nor cut: for the
/// lab only.
const ONLY_IN_THE_LAB: &[&str] = &[
    "backend-killed",
    "checkpointer-frozen-while-the-standby-rejoins",
    "clients-cut-from-the-writer",
    "connections-are-reset",
    "large-packets-vanish",
    "link-that-is-thin",
    "links-that-are-long",
    "links-that-lose",
    "new-connections-fail",
    "one-way-without-acknowledgements",
    "one-way-without-wal",
    "open-connections-die",
    "packets-come-twice",
    "postmaster-frozen",
    "replay-frozen-at-a-switch",
    "walreceiver-frozen",
    "walsender-frozen",
    "writer-killed-over-a-long-link",
];

/// Files that play none of the forty faults: what comes after a switch, and scenarios of peers.
const OTHERS: &[&str] = &[
    "asked-again-before-the-old-side-is-back.toml",
    "each-region-killed-in-turn.toml",
    "switch-there-and-back.toml",
    "writer-killed-over-a-long-link.toml",
    "writer-killed-while-the-old-side-comes-back.toml",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every scenario file, in order.
fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("scenarios")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    files.sort();
    files
}

/// The names of all tests that are in a directory or below it.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                if let (true, Some((_, rest))) = (is_test, line.split_once("fn ")) {
                    found.extend(rest.split('(').next().map(str::to_owned));
                    is_test = false;
                }
            }
            let real = text.split("scenario!(").skip(1);
            found.extend(
                real.filter_map(|rest| rest.split(',').next()).map(|name| name.trim().to_owned()),
            );
        }
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_first_forty_faults__are_each_played_by_a_file_or_test_that_is_there() {
    let mut known = BTreeSet::new();
    tests_below(&repository().join("crates"), &mut known);
    known.extend(files().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()));
    let table = std::fs::read_to_string(repository().join("scenarios/README.md")).unwrap();
    let mut number = 0;
    let mut named = BTreeSet::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, fault, what, by, without, _] = cells.as_slice() else { continue };
        let Ok(fault) = fault.parse::<u32>() else { continue };
        number += 1;
        assert_eq!(fault, number, "{what}");
        let by: Vec<&str> = quoted(by).collect();
        assert!(!by.is_empty(), "fault {fault} is played by nobody");
        for one in &by {
            assert!(known.contains(*one), "fault {fault} is played by {one}, which is not there");
            named.insert((*one).to_owned());
        }
        let has_file = by.iter().any(|one| one.ends_with(".toml"));
        assert_ne!(has_file, !without.is_empty(), "fault {fault}: a file, or why not");
    }
    assert_eq!(number, 40);
    let other: Vec<String> = files()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !named.contains(name))
        .collect();
    assert_eq!(other, OTHERS, "files that play none of the forty");
}

#[test]
fn the_scenarios_of_peers__are_each_played_by_a_file_or_test_that_is_there_or_say_why_not() {
    let mut known = BTreeSet::new();
    tests_below(&repository().join("crates"), &mut known);
    known.extend(files().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()));
    let table = repository().join("docs/scenarios-of-peers.md");
    let table = std::fs::read_to_string(table).unwrap();
    let mut rows = 0;
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, there, by, why, _] = cells.as_slice() else { continue };
        if *there == "there" || there.starts_with("---") {
            continue;
        }
        rows += 1;
        assert!(!by.is_empty() || why.len() >= 10, "{there}: played by nobody, for no reason");
        for one in quoted(by) {
            assert!(known.contains(one), "{there} is played by {one}, which is not there");
        }
    }
    assert!(rows >= 50, "only {rows} scenarios are in the table");
}

#[test]
fn every_story__played_in_the_simulator__ends_as_its_file_says() {
    let mut left_out = BTreeSet::new();
    let mut played = 0;
    for path in files() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let story: Story = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        chaos::listen(true);
        match story.play(Parameters::calm(1, 1, false)) {
            Judged::OnlyInTheLab => {
                left_out.insert(name.to_owned());
            }
            Judged::AsExpected => played += 1,
            Judged::Otherwise(why) => panic!("{}\n{name}: {why}", chaos::said()),
        }
        chaos::listen(false);
    }
    assert_eq!(left_out, ONLY_IN_THE_LAB.iter().map(|name| (*name).to_owned()).collect());
    assert!(played >= 15, "only {played} stories were played");
}
