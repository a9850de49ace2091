//! A prober's connection to one PostgreSQL server: one row per try, each in its own transaction.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::Statement;

use super::{Answer, DEADLINE, Probe};
use crate::ledger::{Access, PostgresTarget, Session};

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS probe_entry (
    at timestamptz NOT NULL DEFAULT clock_timestamp()
)";
const INSERT: &str = "INSERT INTO probe_entry DEFAULT VALUES";
const PREPARE: Duration = Duration::from_secs(5);

/// Make the table, on whichever host takes writes.
pub async fn prepare(target: &PostgresTarget) -> Result<()> {
    for host in &target.hosts {
        if let Ok((session, Access::ReadWrite)) = Session::connect(target, *host, PREPARE).await {
            let made = session.client.batch_execute(CREATE_TABLE);
            return tokio::time::timeout(PREPARE, made)
                .await
                .context("make the prober's table: no answer")?
                .context("make the prober's table");
        }
    }
    anyhow::bail!("no PostgreSQL server takes writes")
}

/// See the module.
pub struct Writer {
    target: PostgresTarget,
    address: SocketAddr,
    open: Option<(Session, Statement)>,
    /// Of a server that took no writes when it was asked last.
    standby: Option<Session>,
}

impl Writer {
    /// One that is not connected yet.
    pub fn new(target: &PostgresTarget, address: SocketAddr) -> Writer {
        Writer { target: target.clone(), address, open: None, standby: None }
    }

    async fn try_once(&mut self) -> Option<()> {
        if self.open.is_none() {
            let kept = self.standby.take();
            let asked = Session::ask(kept, &self.target, self.address, DEADLINE).await;
            let (session, access) = asked.ok()?;
            if access == Access::ReadOnly {
                self.standby = Some(session);
                return None;
            }
            let insert = session.client.prepare(INSERT).await.ok()?;
            self.open = Some((session, insert));
        }
        let (session, insert) = self.open.as_ref()?;
        let doubts = session.doubts();
        session.client.execute(insert, &[]).await.ok()?;
        // An acknowledgement that was cancelled half-way is none.
        (session.doubts() == doubts).then_some(())
    }
}

impl Probe for Writer {
    async fn attempt(&mut self) -> Answer {
        match self.try_once().await {
            Some(()) => Answer::Accepted,
            None => {
                self.forget();
                Answer::NotAccepted
            }
        }
    }

    fn forget(&mut self) {
        self.open = None;
    }
}
