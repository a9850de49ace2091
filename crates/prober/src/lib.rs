//! Probes of availability: what a client of this region would meet, ten times a second, on every way
//! to every datastore.
//!
//! Each way has its own connection and its own timetable. A probe that is late because the one before
//! it was held is counted from when it was due, so that a stall is seen as long as it was. It is served
//! if that happened within a second, refused on an error, unanswered otherwise; nothing is tried
//! twice, except connecting.
//!
//! Left out: what the probes of all regions say together (the core), and where that is kept.

mod postgres;
mod redis;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tier0_config::Stack;
use tier0_core::availability::{Access, Probe, Probed, SLOT_MS, Way};
use tier0_core::words::Region;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::postgres::PostgresClient;
use self::redis::RedisClient;

/// How often each way is probed: once in a slot of the account.
const EVERY: Duration = Duration::from_millis(SLOT_MS as u64);

/// Later than this after it was due, an answer helps nobody.
const WITHIN: Duration = Duration::from_secs(1);

/// Before connecting is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Probes that are kept until somebody asks: about ten seconds of a stack with many ways.
const KEPT: usize = 4_000;

/// What a client is after an attempt.
enum Tried {
    /// It was served.
    Served,
    /// It met an error after something was sent.
    Refused,
    /// It could not connect; nothing was sent.
    NotConnected,
}

/// A client of one way. A future that is dropped leaves a client that can be asked again.
trait Client: Send {
    /// Try once.
    fn attempt(&mut self, access: Access) -> impl Future<Output = Tried> + Send;
}

/// All probes of one region.
#[derive(Debug)]
pub struct Prober {
    began: Instant,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    numbers: u64,
    probes: VecDeque<Probe>,
}

impl Prober {
    /// Begin to probe, where the stack's file says so. A datastore whose secret cannot be read is not
    /// probed, which is logged: looking after it is more important.
    pub fn start(stack: &Stack, region: &Region) -> Arc<Prober> {
        let prober = Arc::new(Prober { began: Instant::now(), kept: Mutex::default() });
        if stack.stack.probes == tier0_config::Probes::Off {
            return prober;
        }
        for datastore in &stack.datastores {
            if let Err(error) = prober.start_datastore(stack, datastore, region) {
                tracing::warn!(datastore = %datastore.name, "not probed: {error:#}");
            }
        }
        prober
    }

    fn start_datastore(
        self: &Arc<Prober>,
        stack: &Stack,
        datastore: &tier0_config::DatastoreSettings,
        region: &Region,
    ) -> anyhow::Result<()> {
        let way = |route, access| Way { datastore: datastore.name.clone(), route, access };
        for access in [Access::Write, Access::Read] {
            if datastore.postgres.is_some() {
                let client = PostgresClient::direct(datastore, region, access)?;
                self.keep_probing(way(None, access), client);
                let routes = stack
                    .routes
                    .iter()
                    .filter(|route| route.datastore == datastore.name && route.region == *region);
                // A route leads to the writer; what is read there is what is written there.
                for route in routes.filter(|_| access == Access::Write) {
                    let client = PostgresClient::through(datastore, route.address)?;
                    self.keep_probing(way(Some(route.id()), access), client);
                }
            } else if datastore.redis.is_some() {
                let client = RedisClient::of(datastore, region)?;
                self.keep_probing(way(None, access), client);
            }
        }
        Ok(())
    }

    fn keep_probing(self: &Arc<Prober>, way: Way, client: impl Client + 'static) {
        let prober = Arc::clone(self);
        tokio::spawn(async move { prober.probe(way, client).await });
    }

    async fn probe(&self, way: Way, mut client: impl Client) {
        let mut due = Instant::now();
        loop {
            due += EVERY;
            sleep_until(due).await;
            let probed = attempt(&mut client, way.access, due).await;
            self.keep(way.clone(), due, probed);
        }
    }

    fn keep(&self, way: Way, due: Instant, probed: Probed) {
        let due_ms = i64::try_from((due - self.began).as_millis()).unwrap_or(i64::MAX);
        let mut kept = self.lock();
        kept.numbers += 1;
        let number = kept.numbers;
        if kept.probes.len() == KEPT {
            kept.probes.pop_front();
        }
        kept.probes.push_back(Probe { number, way, due_ms, probed });
    }

    /// The probes with a higher number, and the time of this run, in milliseconds.
    pub fn after(&self, number: u64) -> (i64, Vec<Probe>) {
        let kept = self.lock();
        let newer = kept.probes.iter().filter(|probe| probe.number > number).cloned().collect();
        (i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX), newer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What is in there is whole after every line above.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes of a datastore, that of this region before others.
fn nearest_first(
    datastore: &tier0_config::DatastoreSettings,
    region: &Region,
) -> impl Iterator<Item = SocketAddr> {
    let (here, away): (Vec<_>, Vec<_>) =
        datastore.nodes.iter().partition(|node| node.region == *region);
    here.into_iter().chain(away).map(|node| node.address)
}

/// One probe, within a second of when it was due.
async fn attempt(client: &mut impl Client, access: Access, due: Instant) -> Probed {
    let deadline = due + WITHIN;
    let mut connected = true;
    loop {
        if Instant::now() >= deadline {
            return if connected { Probed::Unanswered } else { Probed::Refused };
        }
        match timeout_at(deadline, client.attempt(access)).await {
            Ok(Tried::Served) => {
                let held_ms = u32::try_from(due.elapsed().as_millis()).unwrap_or(u32::MAX);
                return Probed::Served { held_ms };
            }
            Ok(Tried::Refused) => return Probed::Refused,
            Ok(Tried::NotConnected) => {
                connected = false;
                sleep(PAUSE).await;
            }
            Err(_) => return Probed::Unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Answers after these times; nothing when there is none.
    struct Scripted(VecDeque<(u64, Tried)>);

    impl Client for Scripted {
        async fn attempt(&mut self, _: Access) -> Tried {
            let (after, tried) = self.0.pop_front().unwrap();
            sleep(Duration::from_millis(after)).await;
            tried
        }
    }

    #[tokio::test]
    async fn a_probe_counts_from_when_it_was_due_and_only_connecting_is_tried_again() {
        let late = Instant::now() - Duration::from_millis(300);
        let mut client = Scripted(VecDeque::from([
            (0, Tried::NotConnected),
            (30, Tried::Served),
            (0, Tried::Refused),
            (5_000, Tried::Served),
        ]));
        match attempt(&mut client, Access::Write, late).await {
            Probed::Served { held_ms } => assert!((350..1_000).contains(&held_ms), "{held_ms}"),
            other => panic!("{other:?}"),
        }
        let refused = attempt(&mut client, Access::Write, Instant::now()).await;
        assert_eq!(refused, Probed::Refused);
        let late = Instant::now() - Duration::from_millis(900);
        assert_eq!(attempt(&mut client, Access::Write, late).await, Probed::Unanswered);
        let too_late = Instant::now() - Duration::from_millis(1_001);
        assert_eq!(attempt(&mut client, Access::Write, too_late).await, Probed::Unanswered);
    }

    #[test]
    fn probes_are_handed_out_once_and_the_oldest_go_first() {
        let prober = Prober { began: Instant::now(), kept: Mutex::default() };
        let way = Way { datastore: "main".parse().unwrap(), route: None, access: Access::Read };
        for _ in 0..KEPT + 10 {
            prober.keep(way.clone(), Instant::now(), Probed::Refused);
        }
        let (_, all) = prober.after(0);
        assert_eq!((all.len(), all[0].number), (KEPT, 11));
        let newest = all.last().unwrap().number;
        assert_eq!(prober.after(newest - 1).1.len(), 1);
        assert_eq!(prober.after(newest).1.len(), 0);
    }
}
