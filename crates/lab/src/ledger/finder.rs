//! Finding the writer of a datastore as clients do, once for all writers of one run, as a
//! connection pool would: a server that answers is asked again every few milliseconds, one that does
//! not answer less often.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::select_all;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::postgres::{Access, Session};
use super::redis_client;
use super::targets::{PostgresTarget, RedisSource, RedisTarget};

/// Between two questions to a server that answers.
const PAUSE: Duration = Duration::from_millis(3);
/// Before a server that let nobody in is connected to again: each try takes a process there, and
/// one that is just being stopped needs its time for that.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);
/// How long one server is waited for. Each is asked on its own, so that it delays nobody; less, and
/// on a busy machine no attempt would ever come to its end.
const ATTEMPT: Duration = Duration::from_secs(1);

/// A writer, as found by the n-th search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub address: SocketAddr,
    /// By which search.
    pub search: u64,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// The PostgreSQL server that takes writes.
    Postgres(PostgresTarget),
    /// The Redis master.
    Redis(RedisTarget),
}

/// The search for one datastore's writer.
#[derive(Debug)]
pub struct Finder {
    found: watch::Receiver<Option<Found>>,
    doubted: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Finder {
    /// Begin to search.
    pub fn start(wanted: Wanted) -> Finder {
        let (found_sender, found) = watch::channel(None);
        let (doubted, doubts) = watch::channel(0);
        let task = tokio::spawn(run(wanted, found_sender, doubts));
        Finder { found, doubted, task }
    }

    /// The writer, once it was found by a later search than number `search`: the caller doubts
    /// what that one found. Zero for any.
    pub async fn after(&self, search: u64) -> Option<Found> {
        self.doubted.send_if_modified(|doubted| {
            let newer = search > *doubted;
            *doubted = (*doubted).max(search);
            newer
        });
        let mut found = self.found.clone();
        let newer = found.wait_for(|found| found.is_some_and(|found| found.search > search)).await;
        newer.ok().and_then(|found| *found)
    }
}

async fn run(
    wanted: Wanted,
    found: watch::Sender<Option<Found>>,
    mut doubts: watch::Receiver<u64>,
) {
    let mut search = 0;
    loop {
        if doubts.wait_for(|doubted| *doubted >= search).await.is_err() {
            return;
        }
        let address = match &wanted {
            Wanted::Postgres(target) => find_postgres(target).await,
            Wanted::Redis(target) => find_redis(target).await,
        };
        search += 1;
        found.send_replace(Some(Found { address, search }));
        // One search at a time, and not more than one in this time, however many clients fail.
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every host is asked on its own, so that a frozen one delays nobody.
async fn find_postgres(target: &PostgresTarget) -> SocketAddr {
    let asked = target.hosts.iter().map(|host| Box::pin(until_writable(target, *host)));
    select_all(asked).await.0
}

/// Ask one host until it takes writes. A standby's session is kept and asked again, as a pool
/// does: a new one each time would take the core from the server that is just being promoted.
async fn until_writable(target: &PostgresTarget, host: SocketAddr) -> SocketAddr {
    let mut open: Option<Session> = None;
    loop {
        let pause = match Session::ask(open.take(), target, host, ATTEMPT).await {
            Ok((_, Access::ReadWrite)) => return host,
            Ok((session, Access::ReadOnly)) => {
                open = Some(session);
                PAUSE
            }
            Err(_) => PAUSE_AFTER_FAILURE,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn find_redis(target: &RedisTarget) -> SocketAddr {
    match &target.source {
        RedisSource::Roles => {
            let asked = target.servers.iter().map(|server| {
                Box::pin(async move {
                    while !confirmed(target, *server).await {
                        tokio::time::sleep(PAUSE).await;
                    }
                    *server
                })
            });
            select_all(asked).await.0
        }
        RedisSource::Sentinels { master_name, sentinels } => {
            let asked = sentinels
                .iter()
                .map(|sentinel| Box::pin(follow_sentinel(target, *sentinel, master_name)));
            select_all(asked).await.0
        }
    }
}

/// Ask one Sentinel until it names a server that says of itself that it is master.
async fn follow_sentinel(
    target: &RedisTarget,
    sentinel: SocketAddr,
    master_name: &str,
) -> SocketAddr {
    let mut open: Option<MultiplexedConnection> = None;
    loop {
        if open.is_none() {
            open = redis_client::connect(sentinel, None, ATTEMPT).await.ok();
        }
        if let Some(connection) = &mut open {
            match redis_client::ask_sentinel(connection, master_name, ATTEMPT).await {
                Some(address) if confirmed(target, address).await => return address,
                Some(_) => {}
                None => open = None,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn confirmed(target: &RedisTarget, server: SocketAddr) -> bool {
    match redis_client::connect(server, target.password.as_ref(), ATTEMPT).await {
        Ok(mut connection) => redis_client::is_master(&mut connection, ATTEMPT).await,
        Err(_) => false,
    }
}
