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

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Statement};

use super::{partitions, schema};
use crate::group::Group;
use crate::reading::{DeviceId, Reading};
use crate::selection::{Of, Selection};

const INSERT: &str = "\
    INSERT INTO device_telemetry \
        (device_id, device_type, site_id, timestamp_utc, metrics, status) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[], \
        $6::jsonb[]) \
    ON CONFLICT (device_id, timestamp_utc) DO NOTHING \
    RETURNING device_id, timestamp_utc";

const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'telemetry-api', 'barrier')";

const LATEST: &str = "\
    SELECT device_id, device_type, site_id, timestamp_utc, metrics, status FROM device_telemetry \
    WHERE device_id = $1 ORDER BY timestamp_utc DESC LIMIT 1";

const OF_DEVICE: &str = "\
    SELECT device_id, device_type, site_id, timestamp_utc, metrics, status FROM device_telemetry \
    WHERE device_id = $1 AND timestamp_utc >= $2 AND timestamp_utc < $3 \
        AND ($4::timestamptz IS NULL OR timestamp_utc > $4) \
    ORDER BY timestamp_utc LIMIT $5";

const OF_SITE: &str = "\
    SELECT device_id, device_type, site_id, timestamp_utc, metrics, status FROM device_telemetry \
    WHERE site_id = $1 AND timestamp_utc >= $2 AND timestamp_utc < $3 \
    ORDER BY timestamp_utc, device_id LIMIT $4";

const OF_SITE_AFTER: &str = "\
    SELECT device_id, device_type, site_id, timestamp_utc, metrics, status FROM device_telemetry \
    WHERE site_id = $1 AND timestamp_utc >= $2 AND timestamp_utc < $3 \
        AND (timestamp_utc, device_id) > ($4, $5) \
    ORDER BY timestamp_utc, device_id LIMIT $6";

/// What one insert of a group came to, or all that were tried for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Stored and acknowledged.
    Stored {
        /// Of each reading in the group's order, whether its row is new. The others were there, and
        /// are as safe as new ones.
        fresh: Vec<bool>,
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
    /// The server refused values; whose of the group, it does not say.
    Rejected {
        /// Why.
        why: String,
    },
}

/// Why a session gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Nobody waits for the answer any more, or will ever give one.
    #[error("the service is ending")]
    Ending,
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
        let (client, mut connection) = config.connect(NoTls).await?;
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

    /// Bring the tables to the newest version. After a failure the session must be dropped.
    pub(super) async fn migrate(&self) -> Result<(), SessionError> {
        Ok(schema::migrate(&self.client).await?)
    }

    /// Make and drop partitions. After a failure the session must be dropped.
    pub(super) async fn keep_partitions(&self, hours: Option<i32>) -> Result<(), SessionError> {
        Ok(partitions::keep(&self.client, hours).await?)
    }

    /// Insert a group, all of it or nothing.
    pub(super) async fn insert(&mut self, group: &Group) -> Attempt {
        let statement = match self.prepared_insert().await {
            Ok(statement) => statement,
            Err(error) => return Attempt::NotStored { why: describe(&error) },
        };
        let devices: Vec<&str> = group.readings().map(|one| one.device_id.as_str()).collect();
        let types: Vec<&str> = group.readings().map(|one| one.device_type.as_str()).collect();
        let sites: Vec<&str> = group.readings().map(|one| one.site_id.as_str()).collect();
        let times: Vec<Timestamp> = group.readings().map(|one| one.timestamp_utc).collect();
        let metrics: Vec<Json<&Map<String, Value>>> =
            group.readings().map(|one| Json(&one.metrics)).collect();
        let status: Vec<Json<&Map<String, Value>>> =
            group.readings().map(|one| Json(&one.status)).collect();
        let before = self.cancelled_waits.load(Ordering::SeqCst);
        let inserted = self
            .client
            .query(&statement, &[&devices, &types, &sites, &times, &metrics, &status])
            .await;
        let rows = match inserted {
            Ok(rows) => rows,
            Err(error) => return judge(&error),
        };
        let fresh = match fresh(group, &rows) {
            Ok(fresh) => fresh,
            // It is stored, and which of it is new cannot be told.
            Err(error) => return Attempt::Unknown { why: describe(&error) },
        };
        let duplicates = fresh.iter().filter(|fresh| !**fresh).count();
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
        Attempt::Stored { fresh }
    }

    async fn prepared_insert(&mut self) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = &self.insert {
            return Ok(statement.clone());
        }
        let statement = match self.client.prepare(INSERT).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                schema::migrate(&self.client).await?;
                self.client.prepare(INSERT).await?
            }
            other => other?,
        };
        self.insert = Some(statement.clone());
        Ok(statement)
    }

    /// The newest reading of a device.
    pub(super) async fn latest(&self, device: &DeviceId) -> Result<Option<Reading>, SessionError> {
        let rows = self.read(LATEST, &[&device.as_str()]).await?;
        rows.first().map(reading).transpose()
    }

    /// The readings that are selected.
    pub(super) async fn select(&self, selection: &Selection) -> Result<Vec<Reading>, SessionError> {
        let Selection { of, from, to, after, limit } = selection;
        let limit = i64::from(*limit);
        let rows = match (of, after) {
            (Of::Device(device), after) => {
                let after = after.as_ref().map(|after| after.timestamp_utc);
                self.read(OF_DEVICE, &[&device.as_str(), from, to, &after, &limit]).await?
            }
            (Of::Site(site), None) => self.read(OF_SITE, &[site, from, to, &limit]).await?,
            (Of::Site(site), Some(after)) => {
                let device = after.device_id.as_str();
                let at = after.timestamp_utc;
                self.read(OF_SITE_AFTER, &[site, from, to, &at, &device, &limit]).await?
            }
        };
        rows.iter().map(reading).collect()
    }

    /// Read; where nothing was ever stored there is nothing.
    async fn read(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SessionError> {
        match self.client.query(sql, parameters).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(Vec::new()),
            other => Ok(other?),
        }
    }
}

/// Which readings of a group the server says it has inserted: of two of the same name, the first.
fn fresh(group: &Group, rows: &[Row]) -> Result<Vec<bool>, tokio_postgres::Error> {
    if rows.len() == group.len() {
        return Ok(vec![true; rows.len()]);
    }
    let mut inserted = HashSet::with_capacity(rows.len());
    for row in rows {
        inserted.insert((row.try_get::<_, &str>(0)?, row.try_get::<_, Timestamp>(1)?));
    }
    let mut fresh = Vec::with_capacity(group.len());
    for one in group.readings() {
        fresh.push(inserted.remove(&(one.device_id.as_str(), one.timestamp_utc)));
    }
    Ok(fresh)
}

/// A row of the statements above.
fn reading(row: &Row) -> Result<Reading, SessionError> {
    let object = |column: usize, name| match row.try_get::<_, Value>(column)? {
        Value::Object(fields) => Ok(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(SessionError::Row(name))
        }
    };
    Ok(Reading {
        device_id: DeviceId::stored(row.try_get(0)?),
        device_type: row.try_get(1)?,
        site_id: row.try_get(2)?,
        timestamp_utc: row.try_get(3)?,
        metrics: object(4, "metrics is not an object")?,
        status: object(5, "status is not an object")?,
    })
}

/// What a failed insert proves.
fn judge(error: &tokio_postgres::Error) -> Attempt {
    let why = describe(error);
    let Some(db) = error.as_db_error() else { return Attempt::Unknown { why } };
    match db.parsed_severity() {
        Some(Severity::Error) => {}
        Some(_) | None => return Attempt::Unknown { why },
    }
    // The row's day got its own partition while the insert waited for that of the rest. A constraint
    // of the table has a name; the bounds of a partition have none.
    if *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none() {
        return Attempt::NotStored { why };
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
