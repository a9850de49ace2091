//! A writer's connection to PostgreSQL through a route: it knows the routes' addresses, keeps to
//! one while that answers, and waits where it is held. It never asks which side is the writer.
//!
//! Each write is an unnamed statement: with transaction pooling, a named one may be looked for on
//! another server than the one that has it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use super::postgres::{Access, Session};
use super::targets::PostgresTarget;
use super::writer::{Outcome, Store};
use super::writer_postgres::{INSERT, judge};

/// A client that is held waits; so does one that connects meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before another route is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub struct RoutedStore {
    writer: String,
    target: PostgresTarget,
    routes: Vec<SocketAddr>,
    at: usize,
    open: Option<Session>,
}

impl RoutedStore {
    /// A writer that is not connected yet; writers with different numbers begin with different
    /// routes.
    pub fn new(
        writer: String,
        target: PostgresTarget,
        routes: Vec<SocketAddr>,
        number: usize,
    ) -> Self {
        RoutedStore { writer, target, routes, at: number, open: None }
    }

    fn route(&self) -> Option<SocketAddr> {
        self.routes.get(self.at % self.routes.len().max(1)).copied()
    }

    async fn open(&mut self) -> Option<()> {
        if self.open.as_ref().is_some_and(|session| !session.client.is_closed()) {
            return Some(());
        }
        self.open = None;
        let opened = Session::connect(&self.target, self.route()?, PATIENCE).await;
        if let Ok((session, Access::ReadWrite)) = opened {
            self.open = Some(session);
            return Some(());
        }
        self.at += 1;
        tokio::time::sleep(PAUSE).await;
        None
    }
}

impl Store for RoutedStore {
    async fn write(&mut self, sequence: i64) -> Outcome {
        if self.open().await.is_none() {
            return Outcome::Failed;
        }
        let Some(session) = &self.open else { return Outcome::Failed };
        let doubts = session.doubts();
        let row: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.writer, Type::TEXT), (&sequence, Type::INT8)];
        let sent = session.client.execute_typed(INSERT, &row);
        let outcome = match tokio::time::timeout(PATIENCE, sent).await {
            Err(_) => Outcome::Unknown,
            Ok(Ok(_)) if session.doubts() != doubts => Outcome::Unknown,
            Ok(Ok(_)) => return Outcome::Acknowledged,
            Ok(Err(error)) => judge(&error),
        };
        self.open = None;
        outcome
    }
}
