//! The newest reading of each device in Redis. A convenience: nothing is acknowledged because of
//! it, and trouble with it is counted, not passed on.
//!
//! Entries live for 30 seconds, which bounds how old an answer can be when an update was missed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use tier0_config::DatastoreSettings;
use tier0_core::words::Region;
use tokio::sync::Mutex;

use crate::reading::{DeviceId, Reading};

/// How long an entry lives, in milliseconds.
const LIFE_MILLIS: u32 = 30_000;

/// How long connecting to Redis, and one answer of it, may take.
const LIMIT: Duration = Duration::from_millis(250);

/// Keeps the newer of two readings, whatever order they arrive in. An entry is the reading's time in
/// microseconds, a space, and the reading; one script for a batch and one SET for an entry, since each
/// command is carried to the replica too.
const KEEP_NEWER: &str = "\
for place, key in ipairs(KEYS) do
  local at, kept = ARGV[2 * place], redis.call('GET', key)
  if not kept or tonumber(string.match(kept, '^%-?%d+')) < tonumber(at) then
    redis.call('SET', key, at .. ' ' .. ARGV[2 * place + 1], 'PX', ARGV[1])
  end
end";

/// The Redis of both regions.
pub(crate) struct Cache {
    nodes: Vec<Node>,
    local: usize,
    /// The node that took the last update; where to begin with the next.
    master: AtomicUsize,
}

struct Node {
    client: redis::Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Cache {
    /// The cache in this datastore, read in this region.
    pub(crate) fn new(datastore: &DatastoreSettings, region: &Region) -> anyhow::Result<Cache> {
        let settings = datastore
            .redis
            .as_ref()
            .with_context(|| format!("datastore {} is not Redis", datastore.name))?;
        let password = settings.password_file.read().context("read password of Redis")?;
        let nodes = datastore
            .nodes
            .iter()
            .map(|node| {
                let address =
                    ConnectionAddr::Tcp(node.address.ip().to_string(), node.address.port());
                let settings = RedisConnectionInfo::default().set_password(password.expose());
                let info = address.into_connection_info()?.set_redis_settings(settings);
                Ok(Node { client: redis::Client::open(info)?, connection: Mutex::new(None) })
            })
            .collect::<redis::RedisResult<_>>()
            .context("prepare Redis clients")?;
        let local = datastore
            .nodes
            .iter()
            .position(|node| node.region == *region)
            .with_context(|| format!("datastore {} has no node in {region}", datastore.name))?;
        Ok(Cache { nodes, local, master: AtomicUsize::new(local) })
    }

    /// Note readings as the newest of their devices. Fails when no node took them.
    pub(crate) async fn put(&self, readings: &[Reading]) -> redis::RedisResult<()> {
        let newest: Vec<&Reading> = newest_of_each(readings).collect();
        let mut pipeline = redis::pipe();
        let script = pipeline.cmd("EVAL").arg(KEEP_NEWER).arg(newest.len()).ignore();
        for reading in &newest {
            script.arg(key(&reading.device_id));
        }
        script.arg(LIFE_MILLIS);
        for reading in &newest {
            let body = serde_json::to_string(reading).map_err(std::io::Error::from)?;
            script.arg(reading.timestamp_utc.as_microsecond()).arg(body);
        }
        let first = self.master.load(Ordering::Relaxed);
        let mut last = Ok(());
        for turn in 0..self.nodes.len() {
            let index = (first + turn) % self.nodes.len();
            last = self.nodes[index].run(&pipeline).await;
            if last.is_ok() {
                self.master.store(index, Ordering::Relaxed);
                return Ok(());
            }
        }
        last
    }

    /// The newest reading that the local node knows.
    pub(crate) async fn get(&self, device: &DeviceId) -> redis::RedisResult<Option<Reading>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(key(device));
        let (entry,): (Option<String>,) = self.nodes[self.local].run(&pipeline).await?;
        // An entry that cannot be read is as good as none.
        Ok(entry.and_then(|entry| serde_json::from_str(entry.split_once(' ')?.1).ok()))
    }

    /// Whether the local node answers.
    pub(crate) async fn reachable(&self) -> bool {
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").ignore();
        self.nodes[self.local].run::<()>(&pipeline).await.is_ok()
    }
}

impl Node {
    async fn run<T: redis::FromRedisValue>(
        &self,
        pipeline: &redis::Pipeline,
    ) -> redis::RedisResult<T> {
        let mut connection = self.connect().await?;
        let answer = pipeline.query_async(&mut connection).await;
        if answer.is_err() {
            // The node may have become a replica, or be gone: look again next time.
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

fn key(device: &DeviceId) -> String {
    format!("telemetry:newest:{}", device.as_str())
}

/// A batch is ordered by device and time, so the newest of a device is its last.
fn newest_of_each(readings: &[Reading]) -> impl Iterator<Item = &Reading> {
    readings
        .chunk_by(|one, other| one.device_id == other.device_id)
        .filter_map(|of_one_device| of_one_device.last())
}
