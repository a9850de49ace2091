//! The results of `lab bench --telemetry`: their file, what is printed, and what README.md shows of
//! them. Every number comes from one results file, which is named.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::machine::{Build, Machine};
use super::results;

/// The version of the results' form.
const VERSION: u32 = 1;

/// What is aimed at on two cores, in readings a second: by round trip, with the batches.
const AIMS: [(u64, f64); 2] = [(0, 20_000.0), (60, 10_000.0)];

/// What a document shows as long as no results are committed.
pub const NOTHING: &str = "Not measured yet: `make bench`.\n";

/// A bench of the reference backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    version: u32,
    begun: String,
    build: Build,
    machine: Machine,
    seconds_each: f64,
    runs: Vec<Measured>,
    skipped: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Who wrote, and how.
    pub what: String,
    /// Of a packet between the regions and back, beside what the machine itself takes.
    pub round_trip_ms: u64,
    /// Readings in a request.
    pub batch: usize,
    /// Acknowledged a second.
    pub readings_per_second: f64,
    /// From when a reading was due until it was acknowledged.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// How many there were.
    pub acknowledged: u64,
    /// How many of them are not there afterwards.
    pub missing: usize,
    /// How many of them are there more than once.
    pub twice: usize,
    /// Requests that were answered otherwise.
    pub errors: u64,
    /// How far the other region was behind, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<Lag>,
    /// What went to the other region.
    pub wal_mb_per_second: f64,
    /// What an archive takes at this pace.
    pub archive_mb_per_hour: f64,
}

/// From the acknowledgement until the reading can be read in the other region.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// In milliseconds.
    pub median: f64,
    /// In milliseconds.
    pub worst: f64,
    /// How many times it was asked.
    pub samples: usize,
}

impl Throughput {
    /// What was measured.
    pub fn of(
        begun: String,
        (build, machine): (Build, Machine),
        seconds_each: f64,
        runs: Vec<Measured>,
        skipped: Vec<String>,
    ) -> Throughput {
        Throughput { version: VERSION, begun, build, machine, seconds_each, runs, skipped }
    }

    /// Read a results file.
    pub fn read(path: &Path) -> Result<Throughput> {
        let version = |results: &Throughput| results.version;
        results::read_figures(path, "a bench of the backend", (VERSION, version))
    }

    /// Write a results file into this directory; its path.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let name = results::name(&self.begun, &self.build)?;
        results::write_figures(directory, &name, self)
    }

    /// Whether nothing was lost or stored twice.
    pub fn is_good(&self) -> bool {
        self.runs.iter().all(|run| run.missing + run.twice == 0)
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{:<10} {:<38} {:>10} {:>8} {:>8} {:>7} {:>6} {:>8} {:>12}\n",
            "round trip",
            "what",
            "readings/s",
            "p50 ms",
            "p99 ms",
            "lost",
            "errors",
            "WAL MB/s",
            "archive MB/h"
        );
        for run in &self.runs {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(
                text,
                "{:<10} {:<38} {:>10.0} {:>8.1} {:>8.1} {:>7} {:>6} {:>8.2} {:>12.0}",
                format!("{} ms", run.round_trip_ms),
                run.what,
                run.readings_per_second,
                run.p50_ms,
                run.p99_ms,
                run.missing + run.twice,
                run.errors,
                run.wal_mb_per_second,
                run.archive_mb_per_hour,
            );
        }
        let _ = writeln!(text, "\n{}", self.beside_the_specification());
        self.skipped.iter().for_each(|one| {
            let _ = writeln!(text, "SKIPPED {one}");
        });
        text
    }

    /// What stands between the marks of README.md.
    pub fn markdown(&self, file_name: &str) -> String {
        let (build, machine) = (&self.build, &self.machine);
        let mut text = format!(
            "Measured {} at {} on {} cores ({}), {:.0} % idle in the \
             second before; both regions and the devices share them. {:.0} s each; every commit \
             waits for the other region. [All figures](bench/telemetry/{file_name}).\n\n\
             | round trip | who writes | readings/s | p50 ms | p99 ms | lost or twice | WAL MB/s |\n\
             |---:|---|---:|---:|---:|---:|---:|\n",
            self.begun.split('T').next().unwrap_or_default(),
            build.words(),
            machine.cores,
            machine.processor,
            machine.idle_before * 100.0,
            self.seconds_each,
        );
        for run in &self.runs {
            let _ = writeln!(
                text,
                "| {} ms | {} | {:.0} | {:.1} | {:.1} | {} | {:.2} |",
                run.round_trip_ms,
                run.what,
                run.readings_per_second,
                run.p50_ms,
                run.p99_ms,
                run.missing + run.twice,
                run.wal_mb_per_second,
            );
        }
        for one in &self.skipped {
            let _ = writeln!(text, "| – | {one} | – | – | – | – | – |");
        }
        let _ = writeln!(text, "\n{}", self.beside_the_specification());
        text
    }

    fn beside_the_specification(&self) -> String {
        let mut text = "The specification has 1,000 transactions a second, a lag below 1 s, about \
                        10 MB/s between the regions and about 100 MB of archive an hour."
            .to_owned();
        for run in &self.runs {
            let Some(lag) = run.lag_ms else { continue };
            let _ = write!(
                text,
                " At {:.0} single readings a second and {} ms: readable in the other region {:.1} \
                 ms after the acknowledgement (median; {:.1} ms at most, of {}), {:.2} MB/s \
                 between the regions, {:.0} MB of archive an hour.",
                run.readings_per_second,
                run.round_trip_ms,
                lag.median,
                lag.worst,
                lag.samples,
                run.wal_mb_per_second,
                run.archive_mb_per_hour,
            );
        }
        for (trip, aim) in AIMS {
            let at = self.runs.iter().filter(|run| run.round_trip_ms == trip);
            let most = at.map(|run| run.readings_per_second).fold(0.0, f64::max);
            let reached = if most >= aim { "reached" } else { "not reached" };
            let _ = write!(text, " Aimed at: {aim:.0} a second at {trip} ms, {reached}.");
        }
        text
    }
}
