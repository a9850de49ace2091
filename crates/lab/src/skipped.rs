//! Tests that cannot run on this machine: they say so and why, and are counted, so that nobody takes
//! them for passed. `make test` prints the count at its end.

use std::fs::OpenOptions;
use std::io::Write;

/// Where the count is kept.
const FILE: &str = "TIER0_SKIPPED";

/// Say that a test does not run, and why.
pub fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    let Some(path) = std::env::var_os(FILE) else { return };
    let line = format!("{test}: {why}\n");
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        println!("and could not be counted: {error}");
    }
}
