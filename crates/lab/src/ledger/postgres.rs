//! A plain PostgreSQL connection of the application, with a deadline that covers all of it, and
//! with the one notice that turns a success into an unknown.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinHandle;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};

use super::targets::PostgresTarget;

/// A connection, with the task that drives it.
pub struct Session {
    /// For queries.
    pub client: Client,
    warnings: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Against a frozen server the task would wait, and keep the socket, for ever.
        self.driver.abort();
    }
}

/// What the server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It takes writes.
    ReadWrite,
    /// It does not.
    ReadOnly,
}

impl Session {
    /// Connect to one host within `limit`.
    pub async fn connect(
        target: &PostgresTarget,
        host: SocketAddr,
        limit: Duration,
    ) -> Result<(Session, Access)> {
        tokio::time::timeout(limit, Self::connect_and_ask(target, host))
            .await
            .with_context(|| format!("connect to PostgreSQL {host}: no answer"))?
            .with_context(|| format!("connect to PostgreSQL {host}"))
    }

    async fn connect_and_ask(
        target: &PostgresTarget,
        host: SocketAddr,
    ) -> Result<(Session, Access)> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(host.ip().to_string())
            .port(host.port())
            .dbname(&target.database)
            .user(&target.user)
            .password(target.password.expose())
            .application_name("ledger");
        let (client, connection) = config.connect(NoTls).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let driver = tokio::spawn(drive(connection, warnings.clone()));
        let session = Session { client, warnings, driver };
        let access = session.access().await?;
        Ok((session, access))
    }

    /// What a server says it is now, within `limit`: over the session that is kept with it, else over
    /// a new one. A session that does not answer is given up.
    pub async fn ask(
        kept: Option<Session>,
        target: &PostgresTarget,
        host: SocketAddr,
        limit: Duration,
    ) -> Result<(Session, Access)> {
        let Some(session) = kept else { return Self::connect(target, host, limit).await };
        let access = tokio::time::timeout(limit, session.access()).await.context("no answer")??;
        Ok((session, access))
    }

    async fn access(&self) -> Result<Access> {
        let rows = self.client.simple_query("SHOW transaction_read_only").await?;
        for row in rows {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = row {
                return Ok(match row.get(0) {
                    Some("off") => Access::ReadWrite,
                    _ => Access::ReadOnly,
                });
            }
        }
        bail!("the server did not say whether it takes writes")
    }

    /// How many warnings came that put an acknowledgement in doubt. One that belongs to a query is
    /// counted before the query's success is seen.
    pub fn doubts(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }
}

async fn drive(mut connection: Connection<Socket, NoTlsStream>, warnings: Arc<AtomicU64>) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message {
            // "canceling wait for synchronous replication": the commit is there and visible, but
            // on this server alone. The client library reports a plain success.
            let in_doubt = matches!(notice.code().code(), "01000" | "57P01");
            if in_doubt && notice.message().contains("cancel") {
                warnings.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// One server in one sentence: whether it takes writes, and how many commits of this role hang in
/// it, waiting for a standby.
pub async fn describe(
    target: &PostgresTarget,
    host: SocketAddr,
    limit: Duration,
) -> Result<String> {
    let (session, access) = Session::connect(target, host, limit).await?;
    let access = match access {
        Access::ReadWrite => "takes writes",
        Access::ReadOnly => "is read-only",
    };
    let query = session
        .client
        .query_one("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", &[]);
    let row = tokio::time::timeout(limit, query).await.context("no answer")??;
    Ok(format!("{access}; {} commits hang in it", row.get::<_, i64>(0)))
}
