//! HTTP traffic: thousands of devices send readings to the reference backend, each when it is due,
//! whatever became of the ones before, and a ledger outside the store notes what was acknowledged.
//!
//! A device behaves as the guide says: it keeps a reading until it is acknowledged, sends it again
//! after a 503 or where nothing answered, and goes to the other region's backend then. That is safe,
//! since a reading is stored once under its device and time.
//!
//! Left out: authentication, and devices that lose what they have measured.

mod device;
mod notes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tier0_config::Stack;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ledger::{Latencies, LedgerFile, WritePath, run_name};
use device::{Fleet, Sender};

/// How often requests that have become due are sent.
const TICK: Duration = Duration::from_millis(2);

/// Requests under way. Beyond that the load is more than this machine can hold; what was due then is
/// counted, and never sent.
const MOST_UNDER_WAY: u64 = 8_000;

/// When readings are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When they are due, whatever became of the ones before: so many readings a second.
    PerSecond(f64),
    /// By so many clients, each as soon as its last request was answered: how much there can be.
    Clients(usize),
}

/// What to send.
#[derive(Debug, Clone)]
pub struct HttpPlan {
    /// How many devices there are; each is a turbine.
    pub devices: usize,
    /// At how many sites they stand.
    pub sites: usize,
    /// When.
    pub pace: Pace,
    /// Readings in one request.
    pub batch: usize,
    /// How long a device goes on sending one reading.
    pub patience: Duration,
    /// Where the ledger is kept.
    pub directory: PathBuf,
}

impl HttpPlan {
    /// The traffic of the demo, noted in `directory`.
    pub fn moderate(directory: PathBuf) -> HttpPlan {
        HttpPlan {
            devices: 2_000,
            sites: 40,
            pace: Pace::PerSecond(200.0),
            batch: 1,
            patience: Duration::from_secs(30),
            directory,
        }
    }

    fn check(&self) -> Result<()> {
        let paced = match self.pace {
            Pace::PerSecond(readings) => readings > 0.0 && readings <= 1_000_000.0,
            Pace::Clients(clients) => (1..=1_000).contains(&clients),
        };
        if !paced {
            bail!("--readings must be above 0 and at most 1000000 a second");
        }
        if self.sites == 0 || self.devices < self.sites {
            bail!("there must be a site, and at least one device at each");
        }
        if !(1..=1_000).contains(&self.batch) || self.batch > self.devices {
            bail!("--batch must be 1 to 1000 readings, and no more than there are devices");
        }
        Ok(())
    }
}

/// What is counted while devices send.
#[derive(Debug, Default)]
pub struct HttpCounters {
    /// Readings that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Requests answered 503, nothing is stored.
    pub refused: AtomicU64,
    /// Requests answered 503, nobody knows.
    pub doubted: AtomicU64,
    /// Requests without an answer.
    pub unanswered: AtomicU64,
    /// Requests with any other answer.
    pub unexpected: AtomicU64,
    /// Readings that were never acknowledged.
    pub given_up: AtomicU64,
    /// Readings that were due while too many requests were under way, and were not sent.
    pub not_sent: AtomicU64,
    under_way: AtomicU64,
}

impl HttpCounters {
    fn errors(&self) -> HttpErrors {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpErrors {
            refused: of(&self.refused),
            doubted: of(&self.doubted),
            unanswered: of(&self.unanswered),
            unexpected: of(&self.unexpected),
        }
    }
}

/// Requests that were not answered with an acknowledgement, by what they were answered with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HttpErrors {
    /// 503, nothing is stored.
    pub refused: u64,
    /// 503, nobody knows.
    pub doubted: u64,
    /// No answer.
    pub unanswered: u64,
    /// Any other answer.
    pub unexpected: u64,
}

impl HttpErrors {
    /// All of them.
    pub fn all(self) -> u64 {
        self.refused + self.doubted + self.unanswered + self.unexpected
    }

    /// What came since.
    #[must_use]
    pub fn since(self, before: HttpErrors) -> HttpErrors {
        HttpErrors {
            refused: self.refused - before.refused,
            doubted: self.doubted - before.doubted,
            unanswered: self.unanswered - before.unanswered,
            unexpected: self.unexpected - before.unexpected,
        }
    }

    /// In words.
    pub fn text(self) -> String {
        format!(
            "{} answered 503 (not stored), {} answered 503 (unknown), {} without an answer, {} \
             with another",
            self.refused, self.doubted, self.unanswered, self.unexpected
        )
    }
}

/// Devices at work. Dropping it ends them without waiting.
#[derive(Debug)]
pub struct HttpTraffic {
    start: Instant,
    counters: Arc<HttpCounters>,
    stop: watch::Sender<Stop>,
    sending: JoinHandle<()>,
    noting: JoinHandle<Result<notes::Noted>>,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Not yet.
    No,
    /// Nothing new is sent.
    New,
    /// What is under way is given up.
    All,
}

/// What came of a run.
#[derive(Debug)]
pub struct HttpSummary {
    /// Readings that were acknowledged.
    pub acknowledged: u64,
    /// Readings that were never acknowledged.
    pub given_up: u64,
    /// Readings that were due and were not sent.
    pub not_sent: u64,
    /// Requests that were answered otherwise, and sent again.
    pub errors: HttpErrors,
    /// The first answer that nobody expected.
    pub first_unexpected: Option<String>,
    /// Times from when a reading was due until it was acknowledged.
    pub latencies: Latencies,
    /// How long the run was.
    pub duration: Duration,
}

impl HttpTraffic {
    /// Start the devices of a stack's sites; each site has a region that it sends to first.
    pub fn start(plan: &HttpPlan, stack: &Stack) -> Result<HttpTraffic> {
        let datastore =
            &stack.telemetry.first().context("the stack has no telemetry-api")?.postgres;
        let backends: Vec<SocketAddr> = stack.telemetry.iter().map(|one| one.listen).collect();
        HttpTraffic::to(plan, &backends, datastore.as_str())
    }

    /// The same for backends at these addresses.
    pub fn to(plan: &HttpPlan, backends: &[SocketAddr], datastore: &str) -> Result<HttpTraffic> {
        plan.check()?;
        std::fs::create_dir_all(&plan.directory)
            .with_context(|| format!("create {}", plan.directory.display()))?;
        let run = format!("{}-{}", run_name()?, WritePath::Http.short());
        let file = LedgerFile::create(&plan.directory, &run, WritePath::Http, datastore)?;
        let start = Instant::now();
        let fleet = Fleet::new(run, plan, jiff::Timestamp::now());
        let counters = Arc::new(HttpCounters::default());
        let (note, noted) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(Stop::No);
        let sender =
            Sender::new(fleet, backends, plan.patience, Arc::clone(&counters), note, start)?;
        let noting = tokio::spawn(notes::keep(file, noted));
        let sending = tokio::spawn(send(Arc::new(sender), plan.clone(), stopped));
        Ok(HttpTraffic { start, counters, stop, sending, noting })
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How many readings were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.counters.acknowledged.load(Ordering::Relaxed)
    }

    /// What was answered otherwise so far.
    pub fn errors(&self) -> HttpErrors {
        self.counters.errors()
    }

    /// Wait until `more` further readings were acknowledged, for at most `limit`.
    pub async fn wait_for_more(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        let reached = async {
            while self.acknowledged() < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(limit, reached).await;
        reached.with_context(|| {
            format!("no {more} readings were acknowledged over HTTP within {limit:?}")
        })
    }

    /// Send nothing new, wait for what is under way, and add up.
    pub async fn stop(self) -> Result<HttpSummary> {
        let duration = self.start.elapsed();
        self.stop.send_replace(Stop::New);
        self.sending.await.context("the devices ended abnormally")?;
        let noted = self.noting.await.context("the ledger ended abnormally")??;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(HttpSummary {
            acknowledged: of(&self.counters.acknowledged),
            given_up: of(&self.counters.given_up),
            not_sent: of(&self.counters.not_sent),
            errors: self.counters.errors(),
            first_unexpected: noted.first_unexpected,
            latencies: noted.latencies,
            duration,
        })
    }
}

/// Send what becomes due until told to stop, then wait for what is under way.
async fn send(sender: Arc<Sender>, plan: HttpPlan, mut stop: watch::Receiver<Stop>) {
    let (given_up, end) = watch::channel(Stop::No);
    match plan.pace {
        Pace::PerSecond(readings) => {
            open_loop(&sender, &plan, readings, &mut stop, &end).await;
        }
        Pace::Clients(clients) => closed_loop(&sender, clients, &stop, &end).await,
    }
    let counters = sender.counters();
    let deadline = Instant::now() + plan.patience;
    while counters.under_way.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
    given_up.send_replace(Stop::All);
    while counters.under_way.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(TICK).await;
    }
}

/// Clients that send one request after the other, until told to stop.
async fn closed_loop(
    sender: &Arc<Sender>,
    clients: usize,
    stop: &watch::Receiver<Stop>,
    end: &watch::Receiver<Stop>,
) {
    let number = Arc::new(AtomicU64::new(0));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (sender, number) = (Arc::clone(sender), Arc::clone(&number));
        let (stop, end) = (stop.clone(), end.clone());
        running.spawn(async move {
            while *stop.borrow() == Stop::No {
                let number = number.fetch_add(1, Ordering::Relaxed);
                sender.send(number, sender.elapsed(), end.clone()).await;
            }
        });
    }
    while running.join_next().await.is_some() {}
}

/// Requests when they are due, until told to stop.
async fn open_loop(
    sender: &Arc<Sender>,
    plan: &HttpPlan,
    readings: f64,
    stop: &mut watch::Receiver<Stop>,
    end: &watch::Receiver<Stop>,
) {
    let interval = plan.batch as f64 / readings;
    let mut number: u64 = 0;
    let mut ticks = tokio::time::interval(TICK);
    let counters = Arc::clone(sender.counters());
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop != Stop::No) => return,
            _ = ticks.tick() => {}
        }
        let elapsed = sender.elapsed();
        loop {
            let due = Duration::from_secs_f64(interval * number as f64);
            if due > elapsed {
                break;
            }
            if counters.under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
                counters.not_sent.fetch_add(plan.batch as u64, Ordering::Relaxed);
            } else {
                counters.under_way.fetch_add(1, Ordering::Relaxed);
                let (sender, counters, end) =
                    (Arc::clone(sender), Arc::clone(&counters), end.clone());
                tokio::spawn(async move {
                    sender.send(number, due, end).await;
                    counters.under_way.fetch_sub(1, Ordering::Relaxed);
                });
            }
            number += 1;
        }
    }
}

/// What came of a run, in one or two lines.
pub fn summary_text(summary: &HttpSummary) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let largest = summary.latencies.largest();
    let mut text = format!(
        "{:<16} {:>7} readings acknowledged, {:.0} a second, {} given up; requests sent again: {}; \
         from due to acknowledged {:.1} ms median, {:.1} ms p99, largest gap {:.0} ms at {:.2} s\n",
        WritePath::Http.name(),
        summary.acknowledged,
        summary.acknowledged as f64 / summary.duration.as_secs_f64().max(0.001),
        summary.given_up,
        summary.errors.text(),
        milliseconds(summary.latencies.percentile(50.0)),
        milliseconds(summary.latencies.percentile(99.0)),
        largest.map_or(0.0, |gap| milliseconds(gap.length())),
        largest.map_or(0.0, |gap| gap.due.as_secs_f64()),
    );
    if summary.not_sent > 0 {
        text.push_str(&format!(
            "  {} readings were due and not sent: {MOST_UNDER_WAY} requests were under way\n",
            summary.not_sent
        ));
    }
    if let Some(first) = &summary.first_unexpected {
        text.push_str(&format!("  the first unexpected answer: {first}\n"));
    }
    text
}
