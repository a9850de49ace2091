//! Stopping the server: fast within the limit, then immediate, then by SIGKILL.
//!
//! Nothing else in this crate ends a backend: one that waits for the standby would answer COMMIT
//! (P5; `syncrep.c` `SyncRepWaitForLSN`). Signals as `postmaster.c` `pmdie` has them: SIGINT is
//! fast, SIGQUIT is immediate.
//!
//! A stop is answered as soon as the control file says "shut down" and no WAL sender is left: then
//! no backend exists, the shutdown checkpoint has reached every standby that listens, and the
//! process only waits for its archiver. That can take longer than all the rest; whoever needs the
//! data directory afterwards waits for it in [`Server::until_gone`].

use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tier0_core::order::{EndedSessions, Fact};
use tier0_core::words::WalPosition;

use crate::control;
use crate::deadline::Deadline;
use crate::ended;
use crate::node::Server;
use crate::process::{self, Postmaster};
use crate::trouble::{Attempt, Trouble};

/// How long an immediate stop may take. The postmaster itself kills children that do not follow
/// after 5 s (`SIGKILL_CHILDREN_AFTER_SECS`); waiting for that would only prolong the outage.
const IMMEDIATE: Duration = Duration::from_secs(2);
/// How long the kernel may take to end killed processes.
const KILLED: Duration = Duration::from_secs(2);
/// How long the archiver may take after a clean stop.
const ARCHIVER: Duration = Duration::from_secs(10);
/// How long counting sessions may take. It is for people; the stop does not wait for it.
const COUNTING: Duration = Duration::from_millis(50);

impl Server {
    /// Stop the server. Done when it is down; a server that is down already is done. A stop that
    /// needed harder means is never answered as clean: its last record may be on no standby.
    pub(crate) async fn stop(&self, deadline: Deadline) -> Attempt<Fact> {
        self.stop_after(None, deadline).await
    }

    /// The same after another way was tried, which had these sessions end.
    pub(crate) async fn stop_after(
        &self,
        ended: Option<EndedSessions>,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        let Some(postmaster) = self.running()? else {
            self.end_orphans().await?;
            let clean_at = self.clean_end().await?;
            return Ok(Fact::Stopped { clean_at, ended: ended.unwrap_or_default() });
        };
        let ended = match ended {
            Some(ended) => ended,
            None => self.whom_it_ends().await,
        };
        postmaster.signal(Signal::INT).map_err(Trouble::io("fast stop"))?;
        let fast = tokio::time::timeout(deadline.left(), self.shut_down(&postmaster)).await;
        let clean_at = match fast {
            Ok(ended) => {
                ended.map_err(|error| Trouble::unknown(format!("wait for the end: {error}")))?;
                let clean_at = self.clean_end().await?;
                finish(postmaster, deadline);
                clean_at
            }
            Err(_) => {
                tracing::warn!(node = %self.node.settings.node, "fast stop took too long");
                stop_hard(&postmaster).await?;
                None
            }
        };
        self.looking.forget().await;
        self.ordering.forget().await;
        Ok(Fact::Stopped { clean_at, ended })
    }

    /// End what a dead postmaster left.
    pub(crate) async fn end_orphans(&self) -> Attempt<()> {
        for orphan in process::orphans(&self.node.paths.data) {
            // It may have ended by itself.
            let _ = pidfd_send_signal(&orphan, Signal::KILL);
            match tokio::time::timeout(KILLED, process::ended(&orphan)).await {
                Ok(ended) => ended.map_err(Trouble::io("wait for an orphan's end"))?,
                Err(_) => return Err(Trouble::unknown("a process of the dead server stays")),
            }
        }
        Ok(())
    }

    /// Returns when the process has ended, or only its archiver is left.
    async fn shut_down(&self, postmaster: &Postmaster) -> std::io::Result<()> {
        let sent = async {
            while !self.is_ending() {
                self.pause().await;
            }
            for sender in postmaster.wal_senders() {
                process::ended(&sender).await?;
            }
            Ok(())
        };
        tokio::select! {
            ended = postmaster.ended() => ended,
            sent = sent => sent,
        }
    }

    /// Whether the process that is there has stopped serving for good. The control file alone does
    /// not say: it is that of the last stop until a start has read it.
    pub(crate) fn is_ending(&self) -> bool {
        let data = &self.node.paths.data;
        process::says_stopping(data) && control::is_shut_down(data)
    }

    /// Wait for the process of a server that was killed or is shut down; one that serves is left alone.
    pub(crate) async fn until_gone(&self, deadline: Deadline) -> Attempt<()> {
        let mut killed = self.killed.lock().await;
        if let Some(postmaster) = &*killed {
            // The kernel takes a killed process apart for a while; nobody has waited for that yet.
            if !ended_within(postmaster, deadline.left()).await? {
                return Err(Trouble::unknown("the killed server has not ended yet"));
            }
            *killed = None;
        }
        drop(killed);
        match self.running()? {
            Some(postmaster) if self.is_ending() => {
                if ended_within(&postmaster, deadline.left()).await? {
                    Ok(())
                } else {
                    Err(Trouble::unknown("the stopped server's archiver has not ended yet"))
                }
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where a primary's shutdown checkpoint ends, if it wrote one.
    pub(crate) async fn clean_end(&self) -> Attempt<Option<WalPosition>> {
        // One that was killed says so at a glance; the next writer waits for this answer.
        if !control::is_shut_down(&self.node.paths.data) {
            return Ok(None);
        }
        // The server is down whatever the file says: what cannot be read is not clean.
        let control = match self.control.read(&self.node).await {
            Ok(control) => control,
            Err(error) => {
                tracing::warn!(%error, "control file after the stop");
                return Ok(None);
            }
        };
        Ok(control.shutdown_checkpoint_end().map(|lsn| WalPosition {
            system: control.system,
            timeline: control.timeline,
            lsn,
        }))
    }

    /// Nobody, as far as is known, where the server does not say so at once.
    async fn whom_it_ends(&self) -> EndedSessions {
        match self.ordering.get(&self.node, COUNTING).await {
            Ok(session) => ended::whom(&session, COUNTING).await,
            Err(_) => EndedSessions::default(),
        }
    }
}

/// See to the end of a server whose archiver is still at work.
fn finish(postmaster: Postmaster, deadline: Deadline) {
    tokio::spawn(async move {
        let limit = deadline.left().max(ARCHIVER);
        match ended_within(&postmaster, limit).await {
            Ok(true) => {}
            Ok(false) | Err(_) => {
                // What was not archived is archived after the next start.
                if let Err(trouble) = stop_hard(&postmaster).await {
                    tracing::error!(%trouble, "a stopped server stays as a process");
                }
            }
        }
    });
}

/// Immediate, then kill.
async fn stop_hard(postmaster: &Postmaster) -> Attempt<()> {
    postmaster.signal(Signal::QUIT).map_err(Trouble::io("immediate stop"))?;
    if ended_within(postmaster, IMMEDIATE).await? { Ok(()) } else { kill(postmaster).await }
}

async fn ended_within(postmaster: &Postmaster, limit: Duration) -> Attempt<bool> {
    match tokio::time::timeout(limit, postmaster.ended()).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) => Err(Trouble::unknown(format!("wait for the server's end: {error}"))),
        Err(_) => Ok(false),
    }
}

async fn kill(postmaster: &Postmaster) -> Attempt<()> {
    postmaster.kill().map_err(Trouble::io("kill the server"))?;
    if ended_within(postmaster, KILLED).await? {
        Ok(())
    } else {
        Err(Trouble::unknown("the server does not end even when killed"))
    }
}
