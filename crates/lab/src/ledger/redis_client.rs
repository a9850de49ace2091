//! A plain Redis connection with deadlines that cover everything, for writers and the checker.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
};
use tier0_config::Secret;

/// Connect within `limit`. Queries on the connection have no deadline of their own.
pub async fn connect(
    address: SocketAddr,
    password: Option<&Secret>,
    limit: Duration,
) -> Result<MultiplexedConnection> {
    let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(password) = password {
        settings = settings.set_password(password.expose());
    }
    let info = ConnectionAddr::Tcp(address.ip().to_string(), address.port())
        .into_connection_info()
        .context("Redis address")?
        .set_tcp_settings(TcpSettings::default().set_nodelay(true))
        .set_redis_settings(settings);
    let client = Client::open(info).context("Redis client")?;
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    tokio::time::timeout(limit, client.get_multiplexed_async_connection_with_config(&config))
        .await
        .with_context(|| format!("connect to Redis {address}: no answer"))?
        .with_context(|| format!("connect to Redis {address}"))
}

/// Whether the server says that it is master.
pub async fn is_master(connection: &mut MultiplexedConnection, limit: Duration) -> bool {
    let role = tokio::time::timeout(limit, async {
        redis::cmd("ROLE").query_async::<Vec<redis::Value>>(connection).await
    });
    match role.await {
        Ok(Ok(fields)) => match fields.first() {
            Some(redis::Value::BulkString(role)) => role == b"master",
            Some(redis::Value::SimpleString(role)) => role == "master",
            _ => false,
        },
        _ => false,
    }
}

/// The master's address as one Sentinel knows it.
pub async fn ask_sentinel(
    connection: &mut MultiplexedConnection,
    master_name: &str,
    limit: Duration,
) -> Option<SocketAddr> {
    let answer = tokio::time::timeout(limit, async {
        redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(master_name)
            .query_async::<Option<(String, u16)>>(connection)
            .await
    });
    let (ip, port) = answer.await.ok()?.ok()??;
    Some(SocketAddr::new(ip.parse().ok()?, port))
}
