//! The figures in README.md and docs/routes.md are those of the newest committed results, and nothing else.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tier0_lab::bench::comparison::Comparison;
use tier0_lab::bench::throughput::{NOTHING, Throughput};
use tier0_lab::bench::{COMPARISONS, READINGS, figures, results};

const RESULTS: &str = "bench/results";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What git knows of; where it does not answer, what is there. A bench that somebody ran here
/// without committing it must not make the test fail.
fn committed(repository: &Path, directory: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .current_dir(repository)
        .args(["ls-files", "-z", "--", directory])
        .output()
        .ok()
        .filter(|output| output.status.success());
    match listed {
        Some(output) => String::from_utf8(output.stdout)
            .unwrap()
            .split_terminator('\0')
            .map(|name| repository.join(name))
            .collect(),
        None => results::files(&repository.join(directory)),
    }
}

#[test]
fn the_figures_in_the_readme_are_those_of_the_newest_committed_results() {
    let repository = repository();
    let Some(newest) = results::newest(committed(&repository, RESULTS)) else {
        panic!("{RESULTS} holds no committed results: run `make bench` and commit what it wrote");
    };
    let summary = results::read(&newest).unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    let readme = std::fs::read_to_string(repository.join("README.md"))
        .expect("README.md is where the figures belong");
    let shown = match figures::block(&readme, figures::SWITCHES) {
        Ok(block) => block,
        Err(error) => panic!("README.md cannot show figures: {error:#}"),
    };
    assert!(
        shown == figures::render(&summary, name),
        "the figures in README.md are not those of {name}: run `tier0 lab bench --render`, which \
         takes the newest results, and commit README.md"
    );
}

#[test]
fn the_readings_in_the_readme_are_those_of_the_newest_committed_results() {
    let repository = repository();
    let expected = match results::newest(committed(&repository, READINGS)) {
        None => NOTHING.to_owned(),
        Some(newest) => {
            let name = newest.file_name().unwrap().to_str().unwrap();
            Throughput::read(&newest).unwrap().markdown(name)
        }
    };
    let readme = std::fs::read_to_string(repository.join("README.md")).unwrap();
    assert_eq!(
        figures::block(&readme, figures::READINGS).unwrap(),
        expected,
        "run `tier0 lab bench --render` and commit README.md"
    );
}

#[test]
fn the_comparison_of_routes_is_that_of_the_newest_committed_results() {
    let repository = repository();
    let expected = match results::newest(committed(&repository, COMPARISONS)) {
        None => NOTHING.to_owned(),
        Some(newest) => {
            let name = newest.file_name().unwrap().to_str().unwrap();
            Comparison::read(&newest).unwrap().markdown(name)
        }
    };
    let document = std::fs::read_to_string(repository.join("docs/routes.md")).unwrap();
    assert_eq!(
        figures::block(&document, figures::ROUTES).unwrap(),
        expected,
        "run `tier0 lab bench --render` and commit docs/routes.md"
    );
}
