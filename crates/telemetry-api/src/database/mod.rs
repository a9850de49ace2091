//! PostgreSQL as an application must use it when its writer may move at any moment.
//!
//! - `session`: one connection, and what the end of an insert proves.
//! - `node`: the sessions of one server. `pool`: how many there can be.
//! - `schema`: the tables, in versions. `partitions`: one for each day.
//! - this file: which server is the writer, and how long and where to try again.
//!
//! Trying again is safe because an insert is idempotent on (device, time). Being told "duplicate"
//! is no proof that the first one is safe, though; see `session`.

mod node;
mod partitions;
mod pool;
mod schema;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tier0_config::DatastoreSettings;
use tier0_core::words::Region;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backend::{Latest, NodeHealth, Page, Role, Source};
use crate::group::Group;
use crate::reading::DeviceId;
use crate::selection::Selection;
use node::Node;
pub(crate) use session::Attempt;
use session::SessionError;

/// How long a request may take before its client hears that nobody knows, or that nothing is
/// stored. Longer than a failover takes.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// How long an insert may stay unanswered before another writer is looked for.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long to wait before looking for a writer again.
const PAUSE: Duration = Duration::from_millis(10);

/// How long to wait before the tables are looked at again.
const MIGRATE_AGAIN: Duration = Duration::from_secs(1);

/// How long one node may take over its tables, before the writer is looked for again.
const TABLES_LIMIT: Duration = Duration::from_secs(60);

/// How often days are looked after, and how soon after that went wrong.
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
const PARTITIONS_AGAIN: Duration = Duration::from_secs(20);

/// How long one node may take to answer a read.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// Says that no node is known to be the writer.
const NOBODY: usize = usize::MAX;

/// The nodes of one PostgreSQL datastore.
pub(crate) struct Database {
    nodes: Vec<Arc<Node>>,
    local: usize,
    /// The node that took the last insert.
    writer: AtomicUsize,
}

impl Database {
    /// The nodes of this datastore, seen from this region.
    pub(crate) fn new(datastore: &DatastoreSettings, region: &Region) -> anyhow::Result<Database> {
        let settings = datastore
            .postgres
            .as_ref()
            .with_context(|| format!("datastore {} is not PostgreSQL", datastore.name))?;
        let password = settings
            .application_password_file
            .read()
            .context("read password of the application")?;
        let nodes = datastore
            .nodes
            .iter()
            .map(|node| Arc::new(Node::new(node, settings, &password)))
            .collect();
        let local = datastore
            .nodes
            .iter()
            .position(|node| node.region == *region)
            .with_context(|| format!("datastore {} has no node in {region}", datastore.name))?;
        Ok(Database { nodes, local, writer: AtomicUsize::new(NOBODY) })
    }

    /// Store a group, all of it or nothing, wherever the writer is.
    pub(crate) async fn write(&self, group: &Arc<Group>) -> Attempt {
        let deadline = Instant::now() + WRITE_LIMIT;
        // Once an insert has an unknown outcome, only one that is stored settles it.
        let mut doubt: Option<String> = None;
        let mut problem = "no node accepts writes".to_owned();
        while Instant::now() < deadline {
            let Some(index) = self.find_writer(deadline).await else {
                sleep(PAUSE).await;
                continue;
            };
            match self.attempt(index, group, deadline).await {
                stored @ Attempt::Stored { .. } => {
                    self.writer.store(index, Ordering::Relaxed);
                    return stored;
                }
                rejected @ Attempt::Rejected { .. } => return rejected,
                Attempt::NotStored { why } => problem = why,
                Attempt::Unknown { why } => doubt = Some(why),
            }
            self.forget_writer(index);
            sleep(PAUSE).await;
        }
        match doubt {
            Some(why) => Attempt::Unknown { why },
            None => Attempt::NotStored { why: problem },
        }
    }

    /// Bring the tables to the newest version, as soon as there is a writer to do it on.
    pub(crate) async fn migrate(&self) {
        loop {
            let deadline = Instant::now() + WRITE_LIMIT;
            if let Some(writer) = self.probe_for_writer(None, deadline).await {
                match in_time(self.nodes[writer].migrate()).await {
                    Ok(()) => return,
                    Err(why) => tracing::warn!(%why, "the tables are not of this version yet"),
                }
            }
            sleep(MIGRATE_AGAIN).await;
        }
    }

    /// Look after the days, as long as the service runs; `None` keeps every reading.
    pub(crate) async fn keep_partitions(&self, hours: Option<i32>) {
        loop {
            let deadline = Instant::now() + WRITE_LIMIT;
            let kept = match self.probe_for_writer(None, deadline).await {
                Some(writer) => in_time(self.nodes[writer].keep_partitions(hours)).await,
                None => Err("no node accepts writes".to_owned()),
            };
            match kept {
                Ok(()) => sleep(PARTITIONS_EVERY).await,
                Err(why) => {
                    // Until then readings lie in the rest, where they are as safe.
                    tracing::warn!(%why, "the days of the table are looked after again later");
                    sleep(PARTITIONS_AGAIN).await;
                }
            }
        }
    }

    /// One insert on one node. It is given up only for another writer, or for good: a second
    /// insert on the same node would wait for the first one, and every one that is left behind
    /// keeps a session of the server.
    async fn attempt(&self, index: usize, group: &Arc<Group>, deadline: Instant) -> Attempt {
        let node = &self.nodes[index];
        let patience = deadline.min(Instant::now() + PATIENCE);
        let mut insert = match timeout_at(patience, node.begin_insert(group)).await {
            Ok(Ok(insert)) => insert,
            Ok(Err(error)) => return Attempt::NotStored { why: error.to_string() },
            Err(_) => {
                return Attempt::NotStored { why: "no session is free".to_owned() };
            }
        };
        loop {
            let patience = deadline.min(Instant::now() + PATIENCE);
            match timeout_at(patience, &mut insert).await {
                Ok(Ok(attempt)) => return attempt,
                Ok(Err(_)) => {
                    return Attempt::Unknown { why: "the insert ended without a word".to_owned() };
                }
                Err(_) => {}
            }
            let unanswered = || Attempt::Unknown { why: "the insert was not answered".to_owned() };
            if Instant::now() >= deadline {
                return unanswered();
            }
            if let Some(other) = self.probe_for_writer(Some(index), deadline).await {
                tracing::info!(region = %self.nodes[other].region(), "the writer moved");
                return unanswered();
            }
        }
    }

    async fn find_writer(&self, deadline: Instant) -> Option<usize> {
        let known = self.writer.load(Ordering::Relaxed);
        if known != NOBODY {
            return Some(known);
        }
        let found = self.probe_for_writer(None, deadline).await?;
        self.writer.store(found, Ordering::Relaxed);
        Some(found)
    }

    /// Ask every node at once, but one, and take the first that accepts writes.
    async fn probe_for_writer(&self, but: Option<usize>, deadline: Instant) -> Option<usize> {
        let mut probes = JoinSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if Some(index) != but {
                let node = Arc::clone(node);
                probes.spawn(async move { (index, node.probe().await) });
            }
        }
        while let Ok(Some(probe)) = timeout_at(deadline, probes.join_next()).await {
            if let Ok((index, Role::Writer)) = probe {
                // The others may finish, or their sessions would have to be made anew.
                probes.detach_all();
                return Some(index);
            }
        }
        None
    }

    /// Unless somebody else has found another one meanwhile.
    fn forget_writer(&self, index: usize) {
        let _ = self.writer.compare_exchange(index, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The newest reading of a device.
    pub(crate) async fn latest(&self, device: &DeviceId) -> Latest {
        let device = device.clone();
        let asked = self.ask(move |node| {
            let device = device.clone();
            async move { node.latest(&device).await }
        });
        match asked.await {
            Ok((Some(reading), source)) => Latest::Found { reading, source },
            Ok((None, _)) => Latest::Absent,
            Err(why) => Latest::Unavailable { why },
        }
    }

    /// The readings that are selected.
    pub(crate) async fn select(&self, selection: &Selection) -> Page {
        let selection = selection.clone();
        let asked = self.ask(move |node| {
            let selection = selection.clone();
            async move { node.select(&selection).await }
        });
        match asked.await {
            Ok((readings, source)) => Page::Found { readings, source },
            Err(why) => Page::Unavailable { why },
        }
    }

    /// Ask this region's node, or another where that is silent.
    async fn ask<T, F>(&self, question: impl Fn(Arc<Node>) -> F) -> Result<(T, Source), String>
    where
        F: Future<Output = Result<T, SessionError>>,
    {
        let mut why = String::new();
        for turn in 0..self.nodes.len() {
            let index = (self.local + turn) % self.nodes.len();
            let source = if turn == 0 { Source::Local } else { Source::Remote };
            let limit = Instant::now() + READ_LIMIT;
            match timeout_at(limit, question(Arc::clone(&self.nodes[index]))).await {
                Ok(Ok(answer)) => return Ok((answer, source)),
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = "the node did not answer in time".to_owned(),
            }
        }
        Err(why)
    }

    /// What every node says of itself.
    pub(crate) async fn health(&self) -> Vec<NodeHealth> {
        let probes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let node = Arc::clone(node);
                tokio::spawn(async move { node.probe().await })
            })
            .collect();
        let mut health = Vec::new();
        for (node, probe) in self.nodes.iter().zip(probes) {
            let role = probe.await.unwrap_or(Role::Unreachable);
            health.push(NodeHealth { region: node.region().clone(), role });
        }
        health
    }
}

/// What came of work on the tables, or that nobody knows yet.
async fn in_time(work: impl Future<Output = Result<(), SessionError>>) -> Result<(), String> {
    match timeout(TABLES_LIMIT, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("the server has not answered yet".to_owned()),
    }
}
