//! A writer's connection to Redis: one key per id, with or without waiting for a replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::WritePath;
use super::finder::{Finder, Found};
use super::redis_client;
use super::targets::RedisTarget;
use super::writer::{Outcome, Store};

const CONNECT: Duration = Duration::from_millis(300);

/// The key of an id.
pub fn key(writer: &str, sequence: i64) -> String {
    format!("ledger:{writer}:{sequence}")
}

/// A client of a router that is held waits for its connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before another router is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// How a writer comes to the master.
pub enum Way {
    /// It is searched for.
    Found {
        /// By whom.
        finder: Arc<Finder>,
        /// What was found last.
        found: Option<Found>,
    },
    /// Routers lead to it; one is kept to while it answers.
    Routes {
        /// Where they are.
        addresses: Vec<SocketAddr>,
        /// Which is the one now.
        at: usize,
    },
}

/// See the module.
pub struct RedisStore {
    writer: String,
    path: WritePath,
    target: RedisTarget,
    way: Way,
    deadline: Duration,
    open: Option<MultiplexedConnection>,
}

impl RedisStore {
    /// A writer that is not connected yet.
    pub fn new(
        writer: String,
        path: WritePath,
        target: RedisTarget,
        way: Way,
        deadline: Duration,
    ) -> Self {
        RedisStore { writer, path, target, way, deadline, open: None }
    }

    async fn open(&mut self) -> Option<()> {
        if self.open.is_some() {
            return Some(());
        }
        let password = self.target.password.as_ref();
        match &mut self.way {
            Way::Found { finder, found } => {
                let search = found.map_or(0, |found| found.search);
                let newer = finder.after(search).await?;
                *found = Some(newer);
                let connected = redis_client::connect(newer.address, password, CONNECT).await;
                self.open = Some(connected.ok()?);
            }
            Way::Routes { addresses, at } => {
                let address = *addresses.get(*at % addresses.len().max(1))?;
                match redis_client::connect(address, password, PATIENCE).await {
                    Ok(connection) => self.open = Some(connection),
                    Err(_) => {
                        *at += 1;
                        tokio::time::sleep(PAUSE).await;
                        return None;
                    }
                }
            }
        }
        Some(())
    }

    /// Ask again who the master is, and keep the connection if it is still the same one.
    async fn ask_again(&mut self) {
        let Way::Found { finder, found } = &mut self.way else {
            // The router leads to the master; this session is one of the old one.
            self.open = None;
            return;
        };
        let before = *found;
        let newer = finder.after(before.map_or(0, |found| found.search)).await;
        if newer.map(|found| found.address) != before.map(|found| found.address) {
            self.open = None;
            // The new address is used at once: a search that nobody doubts is good.
            *found = None;
        } else {
            *found = newer;
        }
    }
}

impl Store for RedisStore {
    async fn write(&mut self, sequence: i64) -> Outcome {
        if self.open().await.is_none() {
            return Outcome::Failed;
        }
        let Some(connection) = &mut self.open else { return Outcome::Failed };
        let name = key(&self.writer, sequence);
        let sent = attempt(connection, &name, self.path, self.deadline);
        let (outcome, line) = match tokio::time::timeout(self.deadline, sent).await {
            Err(_) => (Outcome::Unknown, Line::Broken),
            Ok(result) => result,
        };
        match line {
            Line::Good => {}
            Line::Refused => self.ask_again().await,
            Line::Broken => self.open = None,
        }
        outcome
    }
}

/// What an answer says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Good,
    /// The server answers, and is perhaps not the master any more.
    Refused,
    Broken,
}

async fn attempt(
    connection: &mut MultiplexedConnection,
    name: &str,
    path: WritePath,
    deadline: Duration,
) -> (Outcome, Line) {
    let set = redis::cmd("SET").arg(name).arg(name).exec_async(connection).await;
    if let Err(error) = set {
        return judge(&error);
    }
    if path != WritePath::RedisWait {
        return (Outcome::Acknowledged, Line::Good);
    }
    let limit = deadline.as_millis() * 4 / 5;
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    match redis::cmd("WAIT").arg(1).arg(limit).query_async::<i64>(connection).await {
        Ok(replicas) if replicas >= 1 => (Outcome::Acknowledged, Line::Good),
        Ok(_) => (Outcome::Unknown, Line::Good),
        // The key is set; whatever WAIT says does not take that back.
        Err(error) => (Outcome::Unknown, judge(&error).1),
    }
}

/// An error that the server sent says that nothing was set; a broken connection says nothing.
fn judge(error: &RedisError) -> (Outcome, Line) {
    let answered = error.code().is_some() && !error.is_io_error() && !error.is_timeout();
    if answered { (Outcome::Failed, Line::Refused) } else { (Outcome::Unknown, Line::Broken) }
}
