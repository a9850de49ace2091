//! A commit that is meant to wait: the only proof that commits wait at all.
//!
//! `SHOW` and `sync_state` run ahead of what backends do, since the rule is put in force by the
//! checkpointer (`syncrep.c` `SyncRepUpdateSyncStandbysDefined`): backends read one shared flag,
//! so one waiter that was seen in `wait_event = 'SyncRep'` proves it for all. A canary that came
//! back without having been seen proves nothing; it is sent again.

use std::sync::Arc;

use tier0_core::words::{Lsn, SyncName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::deadline::Deadline;
use crate::node::Server;
use crate::quote;
use crate::session::{Purpose, Session, SessionError};
use crate::trouble::{Attempt, Trouble};

/// How long a canary's own statement may stay without an answer. It ends with the server's
/// waiting; this only bounds what a frozen server would keep.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(600);

/// Where a canary is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flight {
    /// No answer yet.
    Out,
    /// Committed and acknowledged.
    Returned,
    /// Its session broke.
    Broken(String),
}

/// One commit on its way. Dropping it does not cancel the commit: the server notices the closed
/// socket only after the wait.
#[derive(Debug)]
pub(crate) struct Canary {
    flight: watch::Receiver<Flight>,
    task: JoinHandle<()>,
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Canary {
    /// Where it is now.
    pub(crate) fn flight(&self) -> Flight {
        self.flight.borrow().clone()
    }
}

/// A session that sends canaries, one after the other.
#[derive(Debug)]
pub(crate) struct Aviary {
    session: Arc<Session>,
    backend: String,
}

impl Server {
    /// A session for canaries.
    pub(crate) async fn aviary(&self, deadline: Deadline) -> Attempt<Aviary> {
        let database = &self.node.settings.postgres.database;
        let session = self.node.admin(database, Purpose::Canary, deadline.left()).await?;
        let backend = session.value("SELECT pg_backend_pid()", deadline.left()).await?;
        Ok(Aviary { session: Arc::new(session), backend })
    }

    /// Send canaries until one is seen waiting. Answers that canary, and a position that its
    /// commit is not beyond: the flush position read *after* it was seen, since a commit is
    /// flushed here before it waits.
    pub(crate) async fn until_waiting(
        &self,
        aviary: &Aviary,
        token: &str,
        deadline: Deadline,
    ) -> Attempt<(Canary, Lsn)> {
        let session = self.session(deadline).await?;
        loop {
            let canary = aviary.send(token);
            loop {
                let look = format!(
                    "SELECT count(*) FROM pg_stat_activity \
                     WHERE pid = {} AND wait_event = 'SyncRep'",
                    aviary.backend
                );
                if session.value(&look, deadline.left()).await? == "1" {
                    return Ok((canary, self.flushed(&session, deadline).await?));
                }
                match canary.flight() {
                    Flight::Out => {}
                    Flight::Returned => break,
                    Flight::Broken(why) => {
                        return Err(Trouble::unknown(format!("canary: {why}")));
                    }
                }
                if deadline.passed() {
                    return Err(Trouble::unknown("no commit was seen waiting"));
                }
                self.pause().await;
            }
            if deadline.passed() {
                return Err(Trouble::unknown("commits do not wait: canaries come back at once"));
            }
        }
    }

    /// The flush position of the primary.
    pub(crate) async fn flushed(&self, session: &Session, deadline: Deadline) -> Attempt<Lsn> {
        let text = session.value("SELECT pg_current_wal_flush_lsn()", deadline.left()).await?;
        Ok(text.parse().map_err(|_| SessionError::Form("no position"))?)
    }

    /// Wait until a canary returned and exactly one standby of this name, streaming and counted
    /// as synchronous, has flushed `lsn`.
    ///
    /// A receiver begins with what its server has replayed as its own flush position
    /// (`walreceiver.c` `WalReceiverMain`). Where the primary came back with less than that, from
    /// a restored copy or by a disk that lied, every commit counts as flushed there at once.
    pub(crate) async fn until_flushed_by(
        &self,
        name: &SyncName,
        canary: &Canary,
        lsn: Lsn,
        deadline: Deadline,
    ) -> Attempt<()> {
        let session = self.session(deadline).await?;
        let look = format!(
            "SELECT count(*), count(*) FILTER (WHERE state = 'streaming' \
             AND sync_state = 'sync' AND flush_lsn >= {}::pg_lsn), \
             count(*) FILTER (WHERE flush_lsn > pg_current_wal_flush_lsn()) \
             FROM pg_stat_replication WHERE application_name = {}",
            quote::literal(&lsn.to_string()),
            quote::literal(&name.to_string()),
        );
        loop {
            match canary.flight() {
                Flight::Returned => {
                    let row = session.row(&look, deadline.left()).await?;
                    let count = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
                    if count(2) != "0" {
                        return Err(Trouble::failed(format!(
                            "{name} has more than this primary ever wrote: the primary has lost \
                             WAL, and what {name} acknowledges proves nothing"
                        )));
                    }
                    match (count(0).as_str(), count(1).as_str()) {
                        ("1", "1") => return Ok(()),
                        ("0" | "1", _) => {}
                        (several, _) => {
                            return Err(Trouble::failed(format!(
                                "{several} standbys call themselves {name}"
                            )));
                        }
                    }
                }
                Flight::Out => {}
                Flight::Broken(why) => return Err(Trouble::unknown(format!("canary: {why}"))),
            }
            if deadline.passed() {
                return Err(Trouble::unknown(format!("{name} was not seen to flush {lsn}")));
            }
            self.pause().await;
        }
    }
}

impl Aviary {
    /// Send one.
    pub(crate) fn send(&self, token: &str) -> Canary {
        let (report, flight) = watch::channel(Flight::Out);
        let session = self.session.clone();
        let sql = format!("INSERT INTO tier0.canary (token) VALUES ({})", quote::literal(token));
        let task = tokio::spawn(async move {
            let end = match session.run(&sql, LONGEST).await {
                Ok(()) => Flight::Returned,
                Err(error) => Flight::Broken(error.to_string()),
            };
            report.send_replace(end);
        });
        Canary { flight, task }
    }
}
