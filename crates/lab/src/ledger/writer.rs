//! The loop of one writer: a write is due at fixed times, and is tried until it has an outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::Instant;

use super::file::{Entry, LedgerFile};
use super::gap::{Gap, Latencies};

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The store promised it.
    Acknowledged,
    /// It is certainly not done.
    Failed,
    /// It was sent, and there was no answer that could be relied on.
    Unknown,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Write.
    Go,
    /// End.
    Stop,
}

/// What all writers of one path count together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Acknowledged writes.
    pub acknowledged: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Writes without an answer.
    pub unknown: AtomicU64,
}

/// One kind of store. It finds the writer and keeps the connection by itself.
pub trait Store {
    /// Write this id, and say what came of it. Comes back within the deadline of an attempt once a
    /// connection is there; waits for as long as there is none.
    fn write(&mut self, sequence: i64) -> impl Future<Output = Outcome> + Send;
}

/// When writes are due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The start of the traffic.
    pub start: Instant,
    /// When this writer's first write is due, after it.
    pub offset: Duration,
    /// The time between two writes.
    pub interval: Duration,
}

/// Write until told to stop.
pub async fn run(
    mut store: impl Store,
    schedule: Schedule,
    mut file: LedgerFile,
    counters: Arc<Counters>,
    mut order: watch::Receiver<Order>,
) -> Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let mut sequence = 1;
    let mut due = schedule.offset;
    let stopped = |order: &Order| *order == Order::Stop;
    loop {
        tokio::select! {
            _ = order.wait_for(stopped) => return Ok(latencies),
            () = tokio::time::sleep_until(schedule.start + due) => {}
        }
        loop {
            let outcome = tokio::select! {
                // An answer that is there counts, also when the end has come.
                biased;
                outcome = store.write(sequence) => outcome,
                () = grace(order.clone()) => {
                    counters.unknown.fetch_add(1, Ordering::Relaxed);
                    file.unknown(Entry { sequence, due, at: schedule.start.elapsed() })?;
                    return Ok(latencies);
                }
            };
            let at = schedule.start.elapsed();
            match outcome {
                Outcome::Acknowledged => {
                    file.acknowledged(Entry { sequence, due, at })?;
                    counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                    latencies.record(Gap { due, until: at });
                    sequence += 1;
                    break;
                }
                Outcome::Failed => {
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Unknown => {
                    file.unknown(Entry { sequence, due, at })?;
                    counters.unknown.fetch_add(1, Ordering::Relaxed);
                    sequence += 1;
                }
            }
            if *order.borrow() == Order::Stop {
                return Ok(latencies);
            }
        }
        due += schedule.interval;
    }
}

/// Ends a second after the order to stop: time for an answer that is on its way.
async fn grace(mut order: watch::Receiver<Order>) {
    let told = order.wait_for(|order| *order == Order::Stop).await.is_ok();
    if told {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
