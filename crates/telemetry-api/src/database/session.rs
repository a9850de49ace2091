//! One connection to PostgreSQL, and what the end of an insert proves.
//!
//! Three things make "stored" mean stored:
//!
//! - **A success with a warning is no success.** When the wait for the synchronous standby is
//!   cancelled, PostgreSQL answers COMMIT and warns; the row is on one node only.
//! - **A duplicate is no proof.** Such a row is visible, and an insert that finds it writes
//!   nothing, hence waits for no standby. So after a duplicate this session writes a small message
//!   into the WAL and waits for that: it lies behind the row, and so does what waits for it.
//! - **Only an ERROR proves that nothing was stored.** FATAL, or a connection that ends, may come
//!   after the commit.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

use crate::reading::{Batch, DeviceId, Reading};

/// How long connecting may take as a whole; the client's own limit covers only the TCP part.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

const INSERT: &str = "\
    INSERT INTO device_telemetry \
        (device_id, device_type, site_id, timestamp_utc, metrics, status) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[], \
        $6::jsonb[]) \
    ON CONFLICT (device_id, timestamp_utc) DO NOTHING";

const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'telemetry-api', 'barrier')";

const LATEST: &str = "\
    SELECT device_type, site_id, timestamp_utc, metrics, status FROM device_telemetry \
    WHERE device_id = $1 ORDER BY timestamp_utc DESC LIMIT 1";

/// Under a lock, because two sessions that make one table at the same moment fail.
const MAKE_TABLE: &str = "\
    BEGIN; \
    SELECT pg_advisory_xact_lock(8476001); \
    CREATE TABLE IF NOT EXISTS device_telemetry ( \
        device_id text NOT NULL, \
        device_type text NOT NULL, \
        site_id text NOT NULL, \
        timestamp_utc timestamptz NOT NULL, \
        metrics jsonb NOT NULL, \
        status jsonb NOT NULL, \
        PRIMARY KEY (device_id, timestamp_utc)); \
    COMMIT";

/// What one insert came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Stored and acknowledged.
    Stored {
        /// New rows.
        new: u64,
        /// Rows that were there, and are as safe as new ones.
        duplicates: u64,
    },
    /// Proven not to be stored.
    NotStored {
        /// Why.
        why: String,
    },
    /// Nobody knows.
    Unknown {
        /// Why not.
        why: String,
    },
    /// The server refused the values themselves.
    Rejected {
        /// Why.
        why: String,
    },
}

/// Why a session gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Connecting took too long.
    #[error("the server did not accept a session in time")]
    ConnectTimeout,
    /// The server or the network said no.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The row is not of the expected shape.
    #[error("read stored reading: {0}")]
    Row(&'static str),
}

/// One connection.
pub(super) struct Session {
    client: Client,
    insert: Option<Statement>,
    /// How many waits for a standby were cancelled, by the server's own account.
    cancelled_waits: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // A server that is frozen would keep the task and its socket for ever.
        self.driver.abort();
    }
}

impl Session {
    /// Connect.
    pub(super) async fn open(config: &Config) -> Result<Session, SessionError> {
        let (client, mut connection) = timeout(CONNECT_LIMIT, config.connect(NoTls))
            .await
            .map_err(|_| SessionError::ConnectTimeout)??;
        let cancelled_waits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&cancelled_waits);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message
                    && is_cancelled_wait(&notice)
                {
                    // Before the connection is polled again, hence before the statement that it
                    // belongs to is seen to end.
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Ok(Session { client, insert: None, cancelled_waits, driver })
    }

    /// Whether the connection stands, as far as this side has heard.
    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Whether the server accepts writes at this moment.
    pub(super) async fn accepts_writes(&self) -> Result<bool, SessionError> {
        let row =
            self.client.query_one("SELECT current_setting('transaction_read_only')", &[]).await?;
        Ok(row.try_get::<_, &str>(0)? == "off")
    }

    /// Insert a batch, all of it or nothing.
    pub(super) async fn insert(&mut self, batch: &Batch) -> Attempt {
        let statement = match self.prepared_insert().await {
            Ok(statement) => statement,
            Err(error) => return Attempt::NotStored { why: describe(&error) },
        };
        let readings = batch.readings();
        let devices: Vec<&str> = readings.iter().map(|one| one.device_id.as_str()).collect();
        let types: Vec<&str> = readings.iter().map(|one| one.device_type.as_str()).collect();
        let sites: Vec<&str> = readings.iter().map(|one| one.site_id.as_str()).collect();
        let times: Vec<Timestamp> = readings.iter().map(|one| one.timestamp_utc).collect();
        let metrics: Vec<Value> =
            readings.iter().map(|one| Value::Object(one.metrics.clone())).collect();
        let status: Vec<Value> =
            readings.iter().map(|one| Value::Object(one.status.clone())).collect();
        let before = self.cancelled_waits.load(Ordering::SeqCst);
        let inserted = self
            .client
            .execute(&statement, &[&devices, &types, &sites, &times, &metrics, &status])
            .await;
        let new = match inserted {
            Ok(new) => new,
            Err(error) => return judge(&error),
        };
        let duplicates = (readings.len() as u64).saturating_sub(new);
        if duplicates > 0
            && let Err(error) = self.client.execute(BARRIER, &[]).await
        {
            return Attempt::Unknown {
                why: format!("a duplicate may not be safe: {}", describe(&error)),
            };
        }
        if self.cancelled_waits.load(Ordering::SeqCst) != before {
            return Attempt::Unknown {
                why: "the server stopped waiting for its synchronous standby".to_owned(),
            };
        }
        Attempt::Stored { new, duplicates }
    }

    async fn prepared_insert(&mut self) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = &self.insert {
            return Ok(statement.clone());
        }
        let statement = match self.client.prepare(INSERT).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                self.client.batch_execute(MAKE_TABLE).await?;
                self.client.prepare(INSERT).await?
            }
            other => other?,
        };
        self.insert = Some(statement.clone());
        Ok(statement)
    }

    /// The newest reading of a device.
    pub(super) async fn latest(&self, device: &DeviceId) -> Result<Option<Reading>, SessionError> {
        let row = match self.client.query_opt(LATEST, &[&device.as_str()]).await {
            // Nothing was ever stored.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
            other => other?,
        };
        let Some(row) = row else { return Ok(None) };
        let object = |column: usize, name| match row.try_get::<_, Value>(column)? {
            Value::Object(fields) => Ok(fields),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(SessionError::Row(name)),
        };
        Ok(Some(Reading {
            device_id: device.clone(),
            device_type: row.try_get(0)?,
            site_id: row.try_get(1)?,
            timestamp_utc: row.try_get(2)?,
            metrics: object(3, "metrics is not an object")?,
            status: object(4, "status is not an object")?,
        }))
    }
}

/// What a failed insert proves.
fn judge(error: &tokio_postgres::Error) -> Attempt {
    let why = describe(error);
    let Some(db) = error.as_db_error() else { return Attempt::Unknown { why } };
    match db.parsed_severity() {
        Some(Severity::Error) => {}
        Some(_) | None => return Attempt::Unknown { why },
    }
    // Class 22 is a bad value, class 23 a broken constraint.
    if db.code().code().starts_with("22") || db.code().code().starts_with("23") {
        Attempt::Rejected { why }
    } else {
        Attempt::NotStored { why }
    }
}

/// By the function that reports it: the text depends on the server's language.
fn is_cancelled_wait(notice: &DbError) -> bool {
    notice.routine() == Some("SyncRepWaitForLSN")
        || notice.message().contains("canceling wait for synchronous replication")
}

/// The server's words where there are any: the client's own are only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}
