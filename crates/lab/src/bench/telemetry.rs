//! `lab bench --telemetry`: how many readings a second the reference backend acknowledges while every
//! commit waits for the other region, at no distance and over a link of sixty milliseconds, against a
//! client that commits each reading by itself; and beside the specification's throughput, lag and
//! bandwidth.
//!
//! Every run has a ledger, and what was acknowledged is looked for afterwards. The client that commits
//! one by one has no HTTP to speak, which is in its favour.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::types::ToSql;

use super::machine::{Build, Machine};
use super::settings::BenchArgs;
use super::throughput::{Lag, Measured, Throughput};
use crate::account::Account;
use crate::api::{Api, Protected};
use crate::down::{self, Data};
use crate::ledger::{self, Gap, Latencies, PostgresTarget, Session, Targets, WritePath};
use crate::load::{HttpPlan, HttpTraffic, Pace};
use crate::network::control::{self, Order, What};
use crate::network::shape::Change;
use crate::network::{End, Network, link, namespaces};
use crate::progress::Progress;
use crate::state::LabState;
use crate::up::{Up, UpPlan, up};

/// How long each run is, and with `--quick`.
const RUN: Duration = Duration::from_secs(15);
const QUICK: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(3);
/// Readings in a batch: at 2,000 devices that report once a second, what a site gateway collects in
/// some seconds.
const BATCH: usize = 250;
/// Sessions of the client that commits one by one: as many as the backend writes with.
const SESSIONS: usize = 6;
/// The specification's throughput.
const SPECIFIED_TPS: f64 = 1_000.0;

/// Measure, write the results, print them.
pub async fn run(arguments: &BenchArgs) -> Result<ExitCode> {
    let progress = Progress::begin();
    let each = if arguments.quick { QUICK } else { RUN };
    let which = &arguments.which;
    let mut plan = UpPlan::usual(which.instance, which.directory.as_deref())?;
    let mut skipped = Vec::new();
    match namespaces::unavailable() {
        None => plan.network = Network::Namespaces,
        Some(why) => skipped.push(format!("60 ms round trip: {why}")),
    }
    let begun = jiff::Timestamp::now().to_string();
    let (build, machine) = (Build::of(&plan.binary), Machine::look().await);
    let state = match up(&plan, progress).await? {
        Up::Already(state) => {
            bail!("a lab runs in {}: it is not measured", state.directory.display())
        }
        Up::Now(state) => state,
    };
    let measured = tokio::task::block_in_place(|| in_region1(&state, each, progress));
    down::stop(&plan.directory, &Account::unprivileged()?, Data::Remove, progress).await?;
    let seconds = each.as_secs_f64();
    let results = Throughput::of(begun, (build, machine), seconds, measured?, skipped);
    let path = results.write(&arguments.out)?;
    print!("{}", results.text());
    println!("\nresults: {}", path.display());
    Ok(if results.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measure where the devices are: they do not reach their backend through the lab's link, which is a
/// program that would take the processors away from what is measured.
fn in_region1(state: &LabState, each: Duration, progress: Progress) -> Result<Vec<Measured>> {
    let namespace = match state.network {
        Network::Namespaces => End::Region1.namespace(state.instance),
        Network::Loopback => None,
    };
    let measure = || -> Result<Vec<Measured>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(measure_all(state, each, progress))
    };
    match namespace {
        Some(name) => namespaces::within(Some(&name), measure)?,
        // A runtime cannot be made inside of another.
        None => std::thread::scope(|scope| {
            let measured = scope.spawn(measure).join();
            measured.map_err(|_| anyhow::anyhow!("the measurement panicked"))?
        }),
    }
}

async fn measure_all(
    state: &LabState,
    each: Duration,
    progress: Progress,
) -> Result<Vec<Measured>> {
    let mut runs = Vec::new();
    let trips: &[u64] = match state.network {
        Network::Namespaces => &[0, 60],
        Network::Loopback => &[0],
    };
    for trip in trips {
        if *trip > 0 {
            let delay = Some(format!("{}ms", trip / 2).parse()?);
            let change = Change { delay, ..Change::default() };
            let lanes = link::between(End::Region1, Some(End::Region2))?;
            control::ask(&state.directory, &[Order { lanes, what: What::Change(change) }])?;
        }
        let (_, protected) = Api::of(state)?.wait_protected(Duration::from_secs(60)).await;
        if protected == Protected::No {
            bail!("the stack is not protected");
        }
        let bench = Bench { state, each, round_trip_ms: *trip };
        // As many as it takes to keep the backend busy while each waits for the other region.
        let singles = if *trip == 0 { 64 } else { 1_000 };
        for (what, pace, batch) in [
            (format!("{singles} devices, single readings"), Pace::Clients(singles), 1),
            (format!("24 gateways, batches of {BATCH}"), Pace::Clients(24), BATCH),
            ("1000 single readings a second".to_owned(), Pace::PerSecond(SPECIFIED_TPS), 1),
        ] {
            let run = bench.http(what, pace, batch).await?;
            progress.say(line(&run));
            runs.push(run);
        }
        let run = bench.one_by_one().await?;
        progress.say(line(&run));
        runs.push(run);
    }
    Ok(runs)
}

struct Bench<'a> {
    state: &'a LabState,
    each: Duration,
    round_trip_ms: u64,
}

impl Bench<'_> {
    async fn http(&self, what: String, pace: Pace, batch: usize) -> Result<Measured> {
        let stack = self.state.stack()?;
        let targets = Targets::of(&stack)?;
        let backend = stack.telemetry.first().context("the stack has no telemetry-api")?;
        let directory = self.ledger_directory();
        let plan =
            HttpPlan { devices: 20_000, pace, batch, ..HttpPlan::moderate(directory.clone()) };
        let target = targets.find_postgres(backend.postgres.as_str())?;
        let traffic = HttpTraffic::to(&plan, &[backend.listen], backend.postgres.as_str())?;
        // What it takes to begin is not measured.
        traffic.wait_for_more(1, Duration::from_secs(20)).await?;
        let wal = Wal::begin(target).await?;
        let (before, began) = (traffic.acknowledged(), Instant::now());
        let lag = match pace {
            Pace::PerSecond(_) => Some(lag(target, self.each).await?),
            Pace::Clients(_) => {
                tokio::time::sleep(self.each).await;
                None
            }
        };
        // What is answered while the devices stop is looked for, and is no part of the pace.
        let readings_per_second =
            (traffic.acknowledged() - before) as f64 / began.elapsed().as_secs_f64();
        let bytes_per_second = wal.end(target).await?;
        let summary = traffic.stop().await?;
        let report = ledger::check(&directory, &targets).await?;
        Ok(Measured {
            what,
            round_trip_ms: self.round_trip_ms,
            batch,
            readings_per_second,
            p50_ms: milliseconds(summary.latencies.percentile(50.0)),
            p99_ms: milliseconds(summary.latencies.percentile(99.0)),
            acknowledged: summary.acknowledged,
            missing: report.missing(&[WritePath::Http]).len(),
            twice: report.duplicates().len(),
            errors: summary.errors.all(),
            lag_ms: lag,
            wal_mb_per_second: bytes_per_second / 1e6,
            archive_mb_per_hour: bytes_per_second * 3_600.0 / 1e6,
        })
    }

    /// What a service does that commits once for each request, without the request.
    async fn one_by_one(&self) -> Result<Measured> {
        let targets = Targets::of(&self.state.stack()?)?;
        let target = targets.postgres.first().context("the stack has no PostgreSQL")?;
        let run = ledger::run_name()?;
        let count = Arc::new(AtomicU64::new(0));
        let wal = Wal::begin(target).await?;
        let began = Instant::now();
        let mut sessions = tokio::task::JoinSet::new();
        for number in 0..SESSIONS {
            let each = self.each;
            let (target, count) = (target.clone(), Arc::clone(&count));
            let device = format!("{run}-plain-{number}");
            sessions
                .spawn(async move { insert_until(&target, &device, began + each, &count).await });
        }
        let mut latencies = Latencies::new()?;
        while let Some(session) = sessions.join_next().await {
            latencies.merge(&session.context("a session ended abnormally")??)?;
        }
        let took = began.elapsed();
        let bytes_per_second = wal.end(target).await?;
        let acknowledged = count.load(Ordering::Relaxed);
        let (session, _) = Session::connect(target, writer(target).await?, CONNECT).await?;
        let there: i64 = session
            .client
            .query_one(
                "SELECT count(*) FROM device_telemetry WHERE device_id LIKE $1 || '-plain-%'",
                &[&run],
            )
            .await?
            .get(0);
        Ok(Measured {
            what: format!("plain: {SESSIONS} sessions, a commit each"),
            round_trip_ms: self.round_trip_ms,
            batch: 1,
            readings_per_second: acknowledged as f64 / took.as_secs_f64(),
            p50_ms: milliseconds(latencies.percentile(50.0)),
            p99_ms: milliseconds(latencies.percentile(99.0)),
            acknowledged,
            missing: usize::try_from(acknowledged.saturating_sub(there as u64))?,
            twice: 0,
            errors: 0,
            lag_ms: None,
            wal_mb_per_second: bytes_per_second / 1e6,
            archive_mb_per_hour: bytes_per_second * 3_600.0 / 1e6,
        })
    }

    fn ledger_directory(&self) -> PathBuf {
        let name = jiff::Timestamp::now().as_millisecond().to_string();
        self.state.directory.join("ledger").join(name)
    }
}

async fn insert_until(
    target: &PostgresTarget,
    device: &str,
    end: Instant,
    count: &AtomicU64,
) -> Result<Latencies> {
    let (session, _) = Session::connect(target, writer(target).await?, CONNECT).await?;
    let insert = session
        .client
        .prepare(
            "INSERT INTO device_telemetry VALUES ($1, 'turbine', 'plain', clock_timestamp(), \
             '{\"power_kw\": 1200, \"wind_ms\": 9.5, \"rotor_rpm\": 11.25}', \
             '{\"state\": \"running\", \"alarms\": 0}') ON CONFLICT DO NOTHING",
        )
        .await?;
    let mut latencies = Latencies::new()?;
    let begin = Instant::now();
    while Instant::now() < end {
        let due = begin.elapsed();
        session.client.execute(&insert, &[&device as &(dyn ToSql + Sync)]).await?;
        latencies.record(Gap { due, until: begin.elapsed() });
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(latencies)
}

/// The node that takes writes.
async fn writer(target: &PostgresTarget) -> Result<SocketAddr> {
    for host in &target.hosts {
        let opened = Session::connect(target, *host, CONNECT).await;
        if let Ok((_, ledger::Access::ReadWrite)) = opened {
            return Ok(*host);
        }
    }
    bail!("no node of {} takes writes", target.name)
}

/// How much is written to WAL, which is what goes to the other region and into the archive.
struct Wal {
    position: f64,
    began: Instant,
}

impl Wal {
    async fn begin(target: &PostgresTarget) -> Result<Wal> {
        Ok(Wal { position: Wal::position(target).await?, began: Instant::now() })
    }

    async fn position(target: &PostgresTarget) -> Result<f64> {
        let (session, _) = Session::connect(target, writer(target).await?, CONNECT).await?;
        let sql = "SELECT (pg_current_wal_lsn() - '0/0')::float8";
        Ok(session.client.query_one(sql, &[]).await.context("how much WAL there is")?.get(0))
    }

    async fn end(self, target: &PostgresTarget) -> Result<f64> {
        let bytes = Wal::position(target).await? - self.position;
        Ok(bytes / self.began.elapsed().as_secs_f64())
    }
}

/// How long after its acknowledgement a row can be read on the standby, again and again.
async fn lag(target: &PostgresTarget, time: Duration) -> Result<Lag> {
    let here = writer(target).await?;
    let there = *target.hosts.iter().find(|host| **host != here).context("there is one node")?;
    let (one, _) = Session::connect(target, here, CONNECT).await?;
    let (other, _) = Session::connect(target, there, CONNECT).await?;
    let device = format!("lag-{}", ledger::run_name()?);
    let insert = "INSERT INTO device_telemetry VALUES ($1, 'turbine', 'lag', to_timestamp($2), \
                  '{}', '{}')";
    let find = "SELECT 1 FROM device_telemetry WHERE device_id = $1 AND timestamp_utc = \
                to_timestamp($2)";
    let (insert, find) = (one.client.prepare(insert).await?, other.client.prepare(find).await?);
    let mut lags = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let number = lags.len() as f64;
        let row: [&(dyn ToSql + Sync); 2] = [&device, &number];
        one.client.execute(&insert, &row).await?;
        let acknowledged = Instant::now();
        while other.client.query(&find, &row).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lags.push(milliseconds(acknowledged.elapsed()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lags.sort_by(f64::total_cmp);
    let at = |place: usize| lags.get(place).copied().unwrap_or_default();
    Ok(Lag { median: at(lags.len() / 2), worst: at(lags.len() - 1), samples: lags.len() })
}

fn line(run: &Measured) -> String {
    format!(
        "{} ms round trip, {}: {:.0} readings/s, {:.1} ms median, {:.1} ms p99",
        run.round_trip_ms, run.what, run.readings_per_second, run.p50_ms, run.p99_ms
    )
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
