//! A prober outside both regions: it tries a write on both sides of PostgreSQL and of Redis every
//! 5 ms, whoever the writer is, and notes each that was accepted. What lies between two is how long
//! nobody was served.
//!
//! Nothing here reads the stack's status, so that it cannot believe what is not so.

mod outage;
mod postgres;
mod redis;
pub mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

pub use outage::{Outage, both_sides, outage};

use crate::ledger::Targets;
use crate::placement::Place;

/// Between two tries on one side.
const INTERVAL: Duration = Duration::from_millis(5);
/// What has no answer by then is given up.
const DEADLINE: Duration = Duration::from_millis(200);
/// Tries of one side that may wait for an answer at a time, so that a side that hangs is not
/// overrun: a hanging side is tried every 25 ms, one that answers every 5 ms.
const AT_A_TIME: usize = 8;

/// What is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probed {
    /// The first PostgreSQL datastore.
    Postgres,
    /// The first Redis datastore.
    Redis,
}

impl Probed {
    /// Both.
    pub const ALL: [Probed; 2] = [Probed::Postgres, Probed::Redis];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Probed::Postgres => "PostgreSQL",
            Probed::Redis => "Redis",
        }
    }
}

/// A write that a side accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// By which store.
    pub store: Probed,
    /// On which side.
    pub side: Place,
    /// When it was tried, since the prober began.
    pub tried: Duration,
    /// When the answer came.
    pub at: Duration,
}

/// Whether a side took a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted,
    NotAccepted,
}

/// One connection to one side of one store. It connects by itself, and again after any trouble.
trait Probe: Send + 'static {
    /// Try one write. May be dropped at any moment, and [`Probe::forget`] is called then.
    fn attempt(&mut self) -> impl Future<Output = Answer> + Send;

    /// Whatever is open is of no use any more.
    fn forget(&mut self);
}

/// See the module.
pub struct Prober {
    begun: Instant,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    // Dropping it ends all.
    _tasks: JoinSet<()>,
}

impl Prober {
    /// Begin to probe the first PostgreSQL and the first Redis of a stack.
    pub async fn start(targets: &Targets) -> Result<Prober> {
        let (Some(postgres), Some(redis)) = (targets.postgres.first(), targets.redis.first())
        else {
            bail!("the prober needs a PostgreSQL and a Redis datastore");
        };
        postgres::prepare(postgres).await?;
        let begun = Instant::now();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (number, side) in Place::REGIONS.into_iter().enumerate() {
            let side_of = |store| Side { store, side, begun, accepted: accepted.clone() };
            if let Some(address) = postgres.hosts.get(number) {
                let probes = (0..AT_A_TIME).map(|_| postgres::Writer::new(postgres, *address));
                tasks.spawn(side_of(Probed::Postgres).run(probes.collect()));
            }
            if let Some(address) = redis.servers.get(number) {
                let probes = (0..AT_A_TIME).map(|_| redis::Writer::new(redis, *address, side));
                tasks.spawn(side_of(Probed::Redis).run(probes.collect()));
            }
        }
        Ok(Prober { begun, accepted, _tasks: tasks })
    }

    /// The time on the prober's own clock.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Every accepted write so far, by the time of the answer.
    pub fn accepted(&self) -> Vec<Accepted> {
        let mut all = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|one| one.at);
        all
    }

    /// Wait until both stores accepted `count` writes on `side` that were tried after `since`.
    pub async fn wait_for(
        &self,
        side: Place,
        count: usize,
        since: Duration,
        limit: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let counts = Probed::ALL.map(|store| {
                let all = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted =
                    |one: &&Accepted| one.store == store && one.side == side && one.tried > since;
                // The newest are at the end.
                all.iter().rev().take_while(|one| one.at > since).filter(wanted).count()
            });
            if counts.iter().all(|accepted| *accepted >= count) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} accepted {} PostgreSQL and {} Redis writes within {} s, not {count}",
                    side.name(),
                    counts[0],
                    counts[1],
                    limit.as_secs()
                );
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// One side of one store.
struct Side {
    store: Probed,
    side: Place,
    begun: Instant,
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

impl Side {
    /// Try every 5 ms on whichever connection is free, the one that worked last first.
    async fn run<P: Probe>(self, mut free: Vec<P>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut busy = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let Some(mut probe) = free.pop() else { continue };
                    let tried = self.begun.elapsed();
                    busy.spawn(async move {
                        let answer = tokio::time::timeout(DEADLINE, probe.attempt()).await;
                        if answer.is_err() {
                            probe.forget();
                        }
                        (probe, tried, answer)
                    });
                }
                Some(ended) = busy.join_next() => {
                    let Ok((probe, tried, answer)) = ended else { return };
                    if answer == Ok(Answer::Accepted) {
                        self.note(tried);
                        free.push(probe);
                    } else {
                        free.insert(0, probe);
                    }
                }
            }
        }
    }

    fn note(&self, tried: Duration) {
        let Side { store, side, .. } = *self;
        let one = Accepted { store, side, tried, at: self.begun.elapsed() };
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
}
