//! A run of traffic: starts the writers, counts while they write, stops them, adds up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::WritePath;
use super::file::LedgerFile;
use super::finder::{Finder, Wanted};
use super::gap::Latencies;
use super::postgres::Session;
use super::targets::{PostgresTarget, Targets};
use super::writer::{self, Counters, Order, Schedule};
use super::writer_postgres::{CREATE_TABLE, PostgresStore};
use super::writer_redis::{RedisStore, Way};
use super::writer_routed::RoutedStore;

/// How writers reach PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Through {
    /// By the list of its hosts.
    #[default]
    Hosts,
    /// Through the PgBouncers.
    Pgbouncer,
    /// Through the routers, and so those that write to Redis without waiting for its replica.
    Router,
}

/// What to write.
#[derive(Debug, Clone)]
pub struct TrafficPlan {
    /// Writers to PostgreSQL, spread over its datastores.
    pub postgres_writers: usize,
    /// Writers to PostgreSQL through PgBouncers, spread over its datastores and their PgBouncers.
    pub routed_writers: usize,
    /// The same through routers.
    pub proxied_writers: usize,
    /// Writers to Redis that count an answer as an acknowledgement.
    pub redis_writers: usize,
    /// Writers to Redis that count it only after `WAIT 1`.
    pub redis_wait_writers: usize,
    /// Writers to Redis through routers, spread over its datastores and their routers.
    pub redis_proxied_writers: usize,
    /// Writes per second that are due for each writer.
    pub rate: f64,
    /// How long one attempt may take before its outcome counts as unknown.
    pub deadline: Duration,
    /// Where the ledger is kept; created if it is not there, and must hold no ledger yet.
    pub directory: PathBuf,
}

impl TrafficPlan {
    /// With this many writers to PostgreSQL, and those to Redis that it has already, on this way.
    #[must_use]
    pub fn with_postgres(self, writers: usize, through: Through) -> TrafficPlan {
        let none = TrafficPlan { postgres_writers: 0, ..self };
        match through {
            Through::Hosts => TrafficPlan { postgres_writers: writers, ..none },
            Through::Pgbouncer => TrafficPlan { routed_writers: writers, ..none },
            Through::Router => TrafficPlan {
                proxied_writers: writers,
                redis_proxied_writers: none.redis_writers,
                redis_writers: 0,
                ..none
            },
        }
    }

    /// The traffic of the demo, noted in `directory`.
    pub fn moderate(directory: PathBuf) -> TrafficPlan {
        TrafficPlan {
            postgres_writers: 8,
            routed_writers: 0,
            proxied_writers: 0,
            redis_writers: 4,
            redis_wait_writers: 4,
            redis_proxied_writers: 0,
            rate: 40.0,
            deadline: Duration::from_millis(500),
            directory,
        }
    }
}

/// Writers at work. Dropping it ends them without waiting.
#[derive(Debug)]
pub struct Traffic {
    start: Instant,
    order: watch::Sender<Order>,
    counters: BTreeMap<WritePath, Arc<Counters>>,
    writers: Vec<(WritePath, JoinHandle<Result<Latencies>>)>,
    // Searching ends when the last writer is gone.
    _finders: Vec<Arc<Finder>>,
}

/// What came of all writers of one path.
#[derive(Debug)]
pub struct PathSummary {
    /// Which path.
    pub path: WritePath,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Attempts that certainly failed and were made again.
    pub failed: u64,
    /// Writes without an answer.
    pub unknown: u64,
    /// Times from due to acknowledged.
    pub latencies: Latencies,
}

/// What came of a run.
#[derive(Debug)]
pub struct TrafficSummary {
    /// One for each path that had writers.
    pub paths: Vec<PathSummary>,
    /// How long the run was.
    pub duration: Duration,
}

impl TrafficSummary {
    /// What came of one path.
    pub fn path(&self, path: WritePath) -> Option<&PathSummary> {
        self.paths.iter().find(|summary| summary.path == path)
    }
}

impl Traffic {
    /// Start the writers.
    pub async fn start(plan: &TrafficPlan, targets: &Targets) -> Result<Traffic> {
        if !(plan.rate > 0.0 && plan.rate <= 10_000.0) {
            bail!("a writer's rate must be above 0 and at most 10000 a second");
        }
        std::fs::create_dir_all(&plan.directory)
            .with_context(|| format!("create {}", plan.directory.display()))?;
        if !super::read_directory(&plan.directory)?.is_empty() {
            bail!("{} already holds a ledger", plan.directory.display());
        }
        let (order, orders) = watch::channel(Order::Go);
        let mut traffic = Traffic {
            start: Instant::now(),
            order,
            counters: BTreeMap::new(),
            writers: Vec::new(),
            _finders: Vec::new(),
        };
        let postgres = if plan.postgres_writers + plan.routed_writers + plan.proxied_writers > 0 {
            start_postgres_finders(targets).await?
        } else {
            Vec::new()
        };
        traffic.start = Instant::now();
        let run = run_name()?;
        traffic.start_postgres(plan, targets, &postgres, &orders, &run)?;
        for path in [WritePath::Routed, WritePath::Proxied] {
            traffic.start_routed(path, plan, targets, &orders, &run)?;
        }
        traffic.start_redis_proxied(plan, targets, &orders, &run)?;
        let redis: Vec<Arc<Finder>> = targets
            .redis
            .iter()
            .map(|target| Arc::new(Finder::start(Wanted::Redis(target.clone()))))
            .collect();
        for path in [WritePath::Redis, WritePath::RedisWait] {
            traffic.start_redis(path, plan, targets, &redis, &orders, &run)?;
        }
        traffic._finders = postgres.into_iter().chain(redis).collect();
        if traffic.writers.is_empty() {
            bail!("the traffic has no writer: name at least one, for a kind that the stack has");
        }
        Ok(traffic)
    }

    fn start_postgres(
        &mut self,
        plan: &TrafficPlan,
        targets: &Targets,
        finders: &[Arc<Finder>],
        orders: &watch::Receiver<Order>,
        run: &str,
    ) -> Result<()> {
        let spread = targets.postgres.iter().zip(finders).cycle();
        for (number, (target, finder)) in spread.take(plan.postgres_writers).enumerate() {
            let path = WritePath::Postgres;
            let name = format!("{run}-{}-{number:02}", path.short());
            let file = LedgerFile::create(&plan.directory, &name, path, &target.name)?;
            let store = PostgresStore::new(name, target.clone(), finder.clone(), plan.deadline);
            let counters = self.counters.entry(path).or_default().clone();
            let schedule = self.schedule(plan, number, plan.postgres_writers);
            let task = tokio::spawn(writer::run(store, schedule, file, counters, orders.clone()));
            self.writers.push((path, task));
        }
        Ok(())
    }

    fn start_routed(
        &mut self,
        path: WritePath,
        plan: &TrafficPlan,
        targets: &Targets,
        orders: &watch::Receiver<Order>,
        run: &str,
    ) -> Result<()> {
        let proxied = path == WritePath::Proxied;
        let count = if proxied { plan.proxied_writers } else { plan.routed_writers };
        let routes =
            |target: &PostgresTarget| if proxied { &target.routers } else { &target.pools }.clone();
        let routed: Vec<_> = targets.postgres.iter().filter(|it| !routes(it).is_empty()).collect();
        if count > 0 && routed.is_empty() {
            bail!("the stack has no such routes for {count} writers {}", path.name());
        }
        for number in 0..count {
            let target = routed[number % routed.len()];
            let name = format!("{run}-{}-{number:02}", path.short());
            let file = LedgerFile::create(&plan.directory, &name, path, &target.name)?;
            let at = number / routed.len();
            let store = RoutedStore::new(name, target.clone(), routes(target), at);
            let counters = self.counters.entry(path).or_default().clone();
            let schedule = self.schedule(plan, number, count);
            let task = tokio::spawn(writer::run(store, schedule, file, counters, orders.clone()));
            self.writers.push((path, task));
        }
        Ok(())
    }

    fn start_redis_proxied(
        &mut self,
        plan: &TrafficPlan,
        targets: &Targets,
        orders: &watch::Receiver<Order>,
        run: &str,
    ) -> Result<()> {
        let (path, count) = (WritePath::RedisProxied, plan.redis_proxied_writers);
        let routed: Vec<_> = targets.redis.iter().filter(|it| !it.routers.is_empty()).collect();
        if count > 0 && routed.is_empty() {
            bail!("the stack has no routers to Redis for {count} writers");
        }
        for number in 0..count {
            let target = routed[number % routed.len()];
            let name = format!("{run}-{}-{number:02}", path.short());
            let file = LedgerFile::create(&plan.directory, &name, path, &target.name)?;
            let at = number / routed.len();
            let way = Way::Routes { addresses: target.routers.clone(), at };
            let store = RedisStore::new(name, path, target.clone(), way, plan.deadline);
            let counters = self.counters.entry(path).or_default().clone();
            let schedule = self.schedule(plan, number, count);
            let task = tokio::spawn(writer::run(store, schedule, file, counters, orders.clone()));
            self.writers.push((path, task));
        }
        Ok(())
    }

    fn start_redis(
        &mut self,
        path: WritePath,
        plan: &TrafficPlan,
        targets: &Targets,
        finders: &[Arc<Finder>],
        orders: &watch::Receiver<Order>,
        run: &str,
    ) -> Result<()> {
        let count = match path {
            WritePath::Redis => plan.redis_writers,
            WritePath::RedisWait => plan.redis_wait_writers,
            WritePath::Postgres
            | WritePath::Routed
            | WritePath::Proxied
            | WritePath::RedisProxied
            | WritePath::Http => 0,
        };
        let spread = targets.redis.iter().zip(finders).cycle();
        for (number, (target, finder)) in spread.take(count).enumerate() {
            let name = format!("{run}-{}-{number:02}", path.short());
            let file = LedgerFile::create(&plan.directory, &name, path, &target.name)?;
            let way = Way::Found { finder: finder.clone(), found: None };
            let store = RedisStore::new(name, path, target.clone(), way, plan.deadline);
            let counters = self.counters.entry(path).or_default().clone();
            let schedule = self.schedule(plan, number, count);
            let task = tokio::spawn(writer::run(store, schedule, file, counters, orders.clone()));
            self.writers.push((path, task));
        }
        Ok(())
    }

    fn schedule(&self, plan: &TrafficPlan, number: usize, of: usize) -> Schedule {
        let interval = Duration::from_secs_f64(1.0 / plan.rate);
        // Writers take turns, so that they do not all knock at once.
        let offset = interval.mul_f64(number as f64 / of.max(1) as f64);
        Schedule { start: self.start, offset, interval }
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How many writes of a path were acknowledged so far.
    pub fn acknowledged(&self, path: WritePath) -> u64 {
        self.counters.get(&path).map_or(0, |counters| counters.acknowledged.load(Ordering::Relaxed))
    }

    /// How many attempts of a path failed, or were not answered, so far.
    pub fn errors(&self, path: WritePath) -> u64 {
        self.counters.get(&path).map_or(0, |counters| {
            counters.failed.load(Ordering::Relaxed) + counters.unknown.load(Ordering::Relaxed)
        })
    }

    /// Wait until `more` further writes of every path with writers were acknowledged, for at most
    /// `limit`.
    pub async fn wait_for_more(&self, more: u64, limit: Duration) -> Result<()> {
        let goals: Vec<(WritePath, u64)> =
            self.counters.keys().map(|path| (*path, self.acknowledged(*path) + more)).collect();
        let reached = async {
            while goals.iter().any(|(path, goal)| self.acknowledged(*path) < *goal) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(limit, reached).await.is_ok() {
            return Ok(());
        }
        let missing: Vec<&str> = goals
            .iter()
            .filter(|(path, goal)| self.acknowledged(*path) < *goal)
            .map(|(path, _)| path.name())
            .collect();
        bail!("no {more} writes were acknowledged within {limit:?} by: {}", missing.join(", "))
    }

    /// Stop the writers, wait for their last answers, and add up.
    pub async fn stop(self) -> Result<TrafficSummary> {
        self.order.send_replace(Order::Stop);
        let mut latencies: BTreeMap<WritePath, Latencies> = BTreeMap::new();
        for (path, task) in self.writers {
            let one = task.await.context("a writer ended abnormally")??;
            match latencies.entry(path) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(one);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().merge(&one)?;
                }
            }
        }
        let paths = latencies
            .into_iter()
            .filter_map(|(path, latencies)| {
                let counters = self.counters.get(&path)?;
                Some(PathSummary {
                    path,
                    acknowledged: counters.acknowledged.load(Ordering::Relaxed),
                    failed: counters.failed.load(Ordering::Relaxed),
                    unknown: counters.unknown.load(Ordering::Relaxed),
                    latencies,
                })
            })
            .collect();
        Ok(TrafficSummary { paths, duration: self.start.elapsed() })
    }
}

/// A name that no other run has, so that ids never meet.
pub(crate) fn run_name() -> Result<String> {
    Ok(crate::secrets::random_text()?[..8].to_owned())
}

async fn start_postgres_finders(targets: &Targets) -> Result<Vec<Arc<Finder>>> {
    let mut finders = Vec::new();
    for target in &targets.postgres {
        let finder = Arc::new(Finder::start(Wanted::Postgres(target.clone())));
        let created = tokio::time::timeout(Duration::from_secs(10), create_table(target, &finder));
        created
            .await
            .with_context(|| format!("{}: no PostgreSQL takes writes", target.name))?
            .with_context(|| format!("{}: make the ledger's table", target.name))?;
        finders.push(finder);
    }
    Ok(finders)
}

async fn create_table(target: &PostgresTarget, finder: &Finder) -> Result<()> {
    let found = finder.after(0).await.context("the search ended")?;
    let (session, _) = Session::connect(target, found.address, Duration::from_secs(2)).await?;
    session.client.batch_execute(CREATE_TABLE).await?;
    Ok(())
}
