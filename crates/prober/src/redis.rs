//! Probes of Redis. A write is a `SET` of one key for each prober, on whichever node says that it is
//! the master; a read is a `GET` from the first node that answers, that of this region before others.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Value,
};
use tier0_config::{DatastoreSettings, Secret};
use tier0_core::availability::Access;
use tier0_core::words::Region;
use tokio::time::timeout;

use super::{Client, Tried, nearest_first};

/// How long a node may take to accept a connection, and to say what it is.
const NODE_WITHIN: Duration = Duration::from_millis(250);

/// A client with one connection.
pub struct RedisClient {
    nodes: Vec<SocketAddr>,
    password: Secret,
    key: String,
    open: Option<MultiplexedConnection>,
}

impl RedisClient {
    /// By the list of the nodes, that of this region first.
    pub fn of(datastore: &DatastoreSettings, region: &Region) -> anyhow::Result<RedisClient> {
        let settings = datastore.redis.as_ref().context("it is not Redis")?;
        Ok(RedisClient {
            nodes: nearest_first(datastore, region).collect(),
            password: settings.password_file.read().context("read the password")?,
            key: format!("tier0:availability:{region}"),
            open: None,
        })
    }

    async fn connect(&self, access: Access) -> Option<MultiplexedConnection> {
        for node in &self.nodes {
            let opened = timeout(NODE_WITHIN, self.connect_to(*node, access)).await;
            if let Ok(Some(connection)) = opened {
                return Some(connection);
            }
        }
        None
    }

    async fn connect_to(&self, node: SocketAddr, access: Access) -> Option<MultiplexedConnection> {
        let settings = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_password(self.password.expose());
        let info = ConnectionAddr::Tcp(node.ip().to_string(), node.port())
            .into_connection_info()
            .ok()?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(settings);
        let client = redis::Client::open(info).ok()?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.ok()?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await.ok()?;
        let is_master = match role.first() {
            Some(Value::BulkString(word)) => word == b"master",
            Some(Value::SimpleString(word)) => word == "master",
            Some(_) | None => false,
        };
        (is_master || access == Access::Read).then_some(connection)
    }
}

impl Client for RedisClient {
    async fn attempt(&mut self, access: Access) -> Tried {
        // Taken out: a connection that did not answer is dropped with this future.
        let mut connection = match self.open.take() {
            Some(connection) => connection,
            None => match self.connect(access).await {
                Some(connection) => connection,
                None => return Tried::NotConnected,
            },
        };
        let mut command = match access {
            Access::Write => redis::cmd("SET"),
            Access::Read => redis::cmd("GET"),
        };
        command.arg(&self.key);
        if access == Access::Write {
            command.arg("probe");
        }
        match command.query_async::<Value>(&mut connection).await {
            Ok(_) => {
                self.open = Some(connection);
                Tried::Served
            }
            Err(_) => Tried::Refused,
        }
    }
}
