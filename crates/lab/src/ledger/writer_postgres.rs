//! A writer's connection to PostgreSQL: one row per id, each in its own transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Statement};

use super::finder::{Finder, Found};
use super::postgres::{Access, Session};
use super::targets::PostgresTarget;
use super::writer::{Outcome, Store};

/// The table of all ledgers. It has no unique index, so that a write that is applied twice shows.
pub const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS ledger_entry (
    writer text NOT NULL,
    sequence bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
)";
/// One row.
pub const INSERT: &str = "INSERT INTO ledger_entry (writer, sequence) VALUES ($1, $2)";
/// A server that has just been found takes writes, but may be busy with all who come at once.
const CONNECT: Duration = Duration::from_secs(1);

/// See the module.
pub struct PostgresStore {
    writer: String,
    target: PostgresTarget,
    finder: Arc<Finder>,
    deadline: Duration,
    doubted: u64,
    open: Option<(Session, Statement, Found)>,
}

impl PostgresStore {
    /// A writer that is not connected yet.
    pub fn new(
        writer: String,
        target: PostgresTarget,
        finder: Arc<Finder>,
        deadline: Duration,
    ) -> Self {
        PostgresStore { writer, target, finder, deadline, doubted: 0, open: None }
    }

    async fn open(&mut self) -> Option<()> {
        if self.open.as_ref().is_some_and(|(session, ..)| !session.client.is_closed()) {
            return Some(());
        }
        if let Some((.., found)) = self.open.take() {
            self.doubted = found.search;
        }
        let found = self.finder.after(self.doubted).await?;
        self.doubted = found.search;
        let (session, access) =
            Session::connect(&self.target, found.address, CONNECT).await.ok()?;
        if access == Access::ReadOnly {
            return None;
        }
        let prepared = tokio::time::timeout(CONNECT, session.client.prepare(INSERT)).await;
        self.open = Some((session, prepared.ok()?.ok()?, found));
        Some(())
    }
}

impl Store for PostgresStore {
    async fn write(&mut self, sequence: i64) -> Outcome {
        if self.open().await.is_none() {
            return Outcome::Failed;
        }
        let Some((session, insert, found)) = &self.open else { return Outcome::Failed };
        let doubts = session.doubts();
        let row: [&(dyn ToSql + Sync); 2] = [&self.writer, &sequence];
        let sent = session.client.execute(insert, &row);
        let outcome = match tokio::time::timeout(self.deadline, sent).await {
            Err(_) => Outcome::Unknown,
            Ok(Ok(_)) if session.doubts() != doubts => Outcome::Unknown,
            Ok(Ok(_)) => return Outcome::Acknowledged,
            Ok(Err(error)) => judge(&error),
        };
        self.doubted = found.search;
        self.open = None;
        outcome
    }
}

/// Only an error that ends the statement says that nothing was done. One that ends the session may
/// come after the commit.
pub fn judge(error: &Error) -> Outcome {
    match error.as_db_error() {
        Some(error) if matches!(error.severity(), "ERROR") => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}
