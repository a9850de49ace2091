//! What is measured, and how much of it.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::outage::Commander;
use crate::command::Which;
use crate::ledger::Through;
use crate::plan::Orchestrators;

/// The size of the large database.
const LARGE_BYTES: u64 = 5 << 30;
const LARGE_RUNS: usize = 6;

/// Measure commanded switches and failovers under load.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// How many times the writer moves there and back.
    #[arg(long, default_value_t = 30)]
    pub pairs: usize,
    /// How many times the writer's region is killed before the command.
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// How many times each fault is measured by a prober, in a lab of network namespaces.
    #[arg(long, default_value_t = 20)]
    pub outages: usize,
    /// Who moves the writer after such a fault.
    #[arg(long, value_enum, default_value_t = Commander::Nobody)]
    pub who: Commander,
    /// Three pairs, two kills and two of each fault, or short runs of the reference backend or of
    /// routes, to see that all works.
    #[arg(long, conflicts_with_all = ["pairs", "kills", "outages"])]
    pub quick: bool,
    /// Then also with a 5 GB database and an open transaction; needs 25 GB of disk.
    #[arg(long)]
    pub large: bool,
    /// Writers to PostgreSQL.
    #[arg(long, default_value_t = 16)]
    pub postgres_writers: usize,
    /// How they reach it. Keep results through routes apart by `--out`.
    #[arg(long, value_enum, default_value_t = Through::Hosts)]
    pub through: Through,
    /// With an orchestrator at each site, over an etcd cluster. Keep its results apart by `--out`.
    #[arg(long)]
    pub three_orchestrators: bool,
    /// Writers to Redis; half of them wait for the replica.
    #[arg(long, default_value_t = 8)]
    pub redis_writers: usize,
    /// Writes per second of each writer.
    #[arg(long, default_value_t = 40.0)]
    pub rate: f64,
    /// Measure the reference backend instead: readings acknowledged a second, at no distance and over
    /// a link of 60 ms.
    #[arg(long)]
    pub telemetry: bool,
    /// Measure the built-in router instead, against HAProxy and against no proxy, with pgbench and
    /// redis-benchmark.
    #[arg(long, conflicts_with = "telemetry")]
    pub routes: bool,
    /// Where results are kept [with --telemetry: bench/telemetry, with --routes: bench/routes].
    #[arg(
        long,
        default_value = "bench/results",
        default_value_ifs([
            ("telemetry", "true", super::READINGS),
            ("routes", "true", super::COMPARISONS),
        ])
    )]
    pub out: PathBuf,
    /// Measure nothing: write the newest results into README.md and docs/routes.md.
    #[arg(long)]
    pub render: bool,
}

/// What was measured, as the results say it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Switches there and back.
    pub pairs: usize,
    /// Failovers from a killed region.
    pub kills: usize,
    /// Faults of each kind under a prober.
    #[serde(default)]
    pub outages: usize,
    /// The size of the large database, if there is one.
    pub large_bytes: Option<u64>,
    /// Switches with it, each without and with an open transaction.
    pub large_runs: usize,
    /// Writers to PostgreSQL.
    pub postgres_writers: usize,
    /// How they reach it.
    #[serde(default)]
    pub through: Through,
    /// How many orchestrators there are.
    #[serde(default)]
    pub orchestrators: Orchestrators,
    /// Writers to Redis, half of them with `WAIT`.
    pub redis_writers: usize,
    /// Writes per second of each.
    pub rate: f64,
}

impl Settings {
    /// As asked for.
    pub fn of(arguments: &BenchArgs) -> Settings {
        let (pairs, kills, outages) = if arguments.quick {
            (3, 2, 2)
        } else {
            (arguments.pairs, arguments.kills, arguments.outages)
        };
        Settings {
            pairs,
            kills,
            outages,
            large_bytes: arguments.large.then_some(LARGE_BYTES),
            large_runs: if arguments.large { LARGE_RUNS } else { 0 },
            postgres_writers: arguments.postgres_writers,
            through: arguments.through,
            orchestrators: match arguments.three_orchestrators {
                true => Orchestrators::Each,
                false => Orchestrators::One,
            },
            redis_writers: arguments.redis_writers,
            rate: arguments.rate,
        }
    }

    /// Whether anything is wanted of a lab on loopback.
    pub fn wants_switches(&self) -> bool {
        self.pairs + self.kills + self.large_runs > 0
    }
}
