//! The results of `lab bench --routes`: what every run measured, and from it, pair by pair, how the
//! built-in router stands beside HAProxy. Means and intervals are of differences within a round, in
//! which both were measured one right after the other, so that what slows the whole machine cancels.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::machine::{Build, Machine};
use super::results;
use super::statistics::{Interval, median};

/// The version of the results' form.
const VERSION: u32 = 1;

/// What is aimed at: throughput and added time, as parts of HAProxy's.
const LEAST_RATIO: f64 = 0.95;
const MOST_ADDED: f64 = 1.05;

/// How clients come to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To the server itself.
    Direct,
    /// Through the built-in router.
    Router,
    /// Through HAProxy in TCP mode.
    Haproxy,
}

impl Way {
    /// All, in the order of an odd round; an even one has it backwards.
    pub const ALL: [Way; 3] = [Way::Router, Way::Direct, Way::Haproxy];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "no proxy",
            Way::Router => "tier0 router",
            Way::Haproxy => "HAProxy",
        }
    }
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// `pgbench -S`: one row by its key.
    Select,
    /// `pgbench -N`: a small transaction with writes.
    Writes,
    /// `redis-benchmark -t set`.
    Redis,
    /// The same, sixteen requests at once.
    RedisPipelined,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 4] =
        [Workload::Select, Workload::Writes, Workload::Redis, Workload::RedisPipelined];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Select => "pgbench -S",
            Workload::Writes => "pgbench -N",
            Workload::Redis => "redis-benchmark SET",
            Workload::RedisPipelined => "redis-benchmark SET, -P 16",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// In which round.
    pub round: usize,
    /// What was done.
    pub workload: Workload,
    /// By which way.
    pub way: Way,
    /// Transactions or requests a second.
    pub per_second: f64,
    /// The median of what one of them took.
    pub p50_us: f64,
}

/// What a process takes for connections on which nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Whose.
    pub way: Way,
    /// How many connections.
    pub connections: usize,
    /// Its memory (Pss) without them.
    pub before_kib: u64,
    /// And with them.
    pub with_kib: u64,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    version: u32,
    begun: String,
    build: Build,
    machine: Machine,
    haproxy: String,
    seconds_each: f64,
    clients: usize,
    runs: Vec<Measured>,
    idle: Vec<Idle>,
}

/// What the pairs of one workload say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairs {
    /// How many there are.
    pub count: usize,
    /// The router's throughput, as part of HAProxy's.
    pub ratio: Interval,
    /// By how much its p50 is above HAProxy's.
    pub slower_us: Interval,
    /// The router's added p50 less what is aimed at: reached where all of it is below zero.
    pub above_aim_us: Interval,
}

impl Comparison {
    /// What was measured.
    pub fn of(
        begun: String,
        (build, machine, haproxy): (Build, Machine, String),
        (seconds_each, clients): (f64, usize),
        runs: Vec<Measured>,
        idle: Vec<Idle>,
    ) -> Comparison {
        let version = VERSION;
        Comparison { version, begun, build, machine, haproxy, seconds_each, clients, runs, idle }
    }

    /// Read a results file.
    pub fn read(path: &Path) -> Result<Comparison> {
        let version = |results: &Comparison| results.version;
        results::read_figures(path, "a comparison of routes", (VERSION, version))
    }

    /// Write a results file into this directory; its path.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let name = results::name(&self.begun, &self.build)?;
        results::write_figures(directory, &name, self)
    }

    /// The rounds of a workload, each with the three ways' runs.
    fn rounds(&self, workload: Workload) -> Vec<[Measured; 3]> {
        let find = |round, way| {
            let mut runs = self.runs.iter();
            runs.find(|run| (run.round, run.workload, run.way) == (round, workload, way)).copied()
        };
        let rounds = self.runs.iter().map(|run| run.round).max().map_or(0, |last| last + 1);
        let [router, direct, haproxy] = Way::ALL;
        (0..rounds)
            .filter_map(|round| {
                Some([find(round, router)?, find(round, direct)?, find(round, haproxy)?])
            })
            .collect()
    }

    /// The pairs of a workload; `None` where there are fewer than two.
    pub fn pairs(&self, workload: Workload) -> Option<Pairs> {
        let rounds = self.rounds(workload);
        let each = |value: fn(&[Measured; 3]) -> f64| {
            Interval::of(&rounds.iter().map(value).collect::<Vec<f64>>())
        };
        Some(Pairs {
            count: rounds.len(),
            ratio: each(|[router, _, haproxy]| (router.per_second / haproxy.per_second).ln())?
                .map(f64::exp),
            slower_us: each(|[router, _, haproxy]| router.p50_us - haproxy.p50_us)?,
            above_aim_us: each(|[router, direct, haproxy]| {
                (router.p50_us - direct.p50_us) - MOST_ADDED * (haproxy.p50_us - direct.p50_us)
            })?,
        })
    }

    fn medians(&self, workload: Workload, way: Way) -> Option<(f64, f64)> {
        let own = self.runs.iter().filter(|run| run.workload == workload && run.way == way);
        let (throughputs, times): (Vec<f64>, Vec<f64>) =
            own.map(|run| (run.per_second, run.p50_us)).unzip();
        Some((median(&throughputs)?, median(&times)?))
    }

    /// The table for a terminal and for the documentation.
    fn table(&self) -> String {
        let mut text =
            "| | no proxy, a second | HAProxy | tier0 router | router / HAProxy | p50 added \
                        by HAProxy, µs | by the router | router − HAProxy, µs |\n\
                        |---|---:|---:|---:|---:|---:|---:|---:|\n"
                .to_owned();
        for workload in Workload::ALL {
            let medians = |way| self.medians(workload, way);
            let (Some(direct), Some(haproxy), Some(router), Some(pairs)) = (
                medians(Way::Direct),
                medians(Way::Haproxy),
                medians(Way::Router),
                self.pairs(workload),
            ) else {
                continue;
            };
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.0} | {:.3} [{:.3}, {:.3}] | {:.0} | {:.0} | \
                 {:+.0} [{:+.0}, {:+.0}] |",
                workload.name(),
                direct.0,
                haproxy.0,
                router.0,
                pairs.ratio.mean,
                pairs.ratio.low,
                pairs.ratio.high,
                haproxy.1 - direct.1,
                router.1 - direct.1,
                pairs.slower_us.mean,
                pairs.slower_us.low,
                pairs.slower_us.high,
            );
        }
        text
    }

    fn beside_the_aim(&self) -> String {
        let mut text = String::new();
        for workload in Workload::ALL {
            let Some(pairs) = self.pairs(workload) else { continue };
            let said = |reached| if reached { "reached" } else { "not reached" };
            let _ = write!(
                text,
                "{}: {}throughput {}, added p50 {}.",
                workload.name(),
                if text.is_empty() {
                    "aimed at a ratio of at least 0.95 and at most 1.05 of \
                 HAProxy's added p50, each with its whole interval; "
                } else {
                    ""
                },
                said(pairs.ratio.low >= LEAST_RATIO),
                said(pairs.above_aim_us.high <= 0.0),
            );
            text.push(' ');
        }
        format!("{}\n", text.trim_end())
    }

    fn memory(&self) -> String {
        let mut parts = Vec::new();
        for idle in &self.idle {
            let more = idle.with_kib.saturating_sub(idle.before_kib) as f64;
            parts.push(format!(
                "{} {:.1} MiB, and {:.1} MiB without any",
                idle.way.name(),
                more / 1_024.0 * 1_000.0 / idle.connections as f64,
                idle.before_kib as f64 / 1_024.0,
            ));
        }
        format!("Memory (Pss) for 1,000 idle connections: {}.\n", parts.join("; "))
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        format!("\n{}\n{}\n{}", self.table(), self.beside_the_aim(), self.memory())
    }

    /// What stands between the marks of docs/routes.md.
    pub fn markdown(&self, file_name: &str) -> String {
        let (build, machine) = (&self.build, &self.machine);
        let rounds = self.rounds(Workload::Select).len();
        format!(
            "Measured {} at {} on {} cores ({}), {:.0} % idle in the \
             second before, against HAProxy {} with as many threads as cores. {} clients, {:.0} s \
             each, {rounds} rounds in which the three ways follow each other, forwards and \
             backwards in turn; servers, clients, proxies and the rest of the lab share the cores. \
             Commits do not wait for a disk here. Throughput and added p50 are medians; ratio and \
             difference are means over the rounds with their 95 % intervals. \
             [Every run](../bench/routes/{file_name}).\n\n{}\n{}\n{}",
            self.begun.split('T').next().unwrap_or_default(),
            build.words(),
            machine.cores,
            machine.processor,
            machine.idle_before * 100.0,
            self.haproxy,
            self.clients,
            self.seconds_each,
            self.table(),
            self.beside_the_aim(),
            self.memory(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn comparison(runs: Vec<Measured>) -> Comparison {
        let build = Build {
            version: "1".to_owned(),
            commit: "abc".to_owned(),
            working_tree: "clean".to_owned(),
            profile: "dev".to_owned(),
        };
        let machine = Machine {
            cores: 2,
            processor: "x".to_owned(),
            memory_mib: 1,
            kernel: "x".to_owned(),
            postgres: "15".to_owned(),
            redis: "7".to_owned(),
            idle_before: 1.0,
            load_before: 0.0,
        };
        let about = (build, machine, "2.6".to_owned());
        Comparison::of("2026-11-26T09:00:00Z".to_owned(), about, (4.0, 16), runs, Vec::new())
    }

    #[test]
    fn what_slows_a_whole_round_down_changes_nothing() {
        let mut runs = Vec::new();
        for (round, speed) in [1.0, 0.5, 2.0].into_iter().enumerate() {
            for (way, per_second, p50_us) in [
                (Way::Router, 900.0, 130.0),
                (Way::Direct, 2_000.0, 60.0),
                (Way::Haproxy, 1_000.0, 120.0),
            ] {
                let (per_second, workload) = (per_second * speed, Workload::Select);
                runs.push(Measured { round, workload, way, per_second, p50_us });
            }
        }
        let pairs = comparison(runs).pairs(Workload::Select).unwrap();
        assert_eq!(pairs.count, 3);
        for bound in [pairs.ratio.low, pairs.ratio.mean, pairs.ratio.high] {
            assert!((bound - 0.9).abs() < 1e-9, "{pairs:?}");
        }
        assert!((pairs.slower_us.mean - 10.0).abs() < 1e-9);
        // 70 µs are more than 1.05 of 60.
        assert!((pairs.above_aim_us.low - 7.0).abs() < 1e-9, "{pairs:?}");
    }

    #[test]
    fn one_round_has_no_interval_and_half_a_round_is_none() {
        let run = |round, way| Measured {
            round,
            workload: Workload::Redis,
            way,
            per_second: 1.0,
            p50_us: 1.0,
        };
        let mut runs = Way::ALL.map(|way| run(0, way)).to_vec();
        runs.push(run(1, Way::Router));
        assert_eq!(comparison(runs).pairs(Workload::Redis), None);
    }
}
