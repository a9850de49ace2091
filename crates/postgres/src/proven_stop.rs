//! Ending a primary that hands over, as soon as its last record is known to be on its standbys.
//!
//! A fast shutdown ends in the same place, and most of what it does on the way a switch need not wait
//! for: it fills the rest of the WAL segment with zeros and sends them (`xlog.c` `ShutdownXLOG`, where
//! archiving is on), writes a checkpoint, and answers every client that comes back meanwhile with a
//! process of its own (`postmaster.c` `canAcceptConnections`). So here the postmaster is stopped by a
//! signal, which lets nobody in; every session is told to end and awaited; one last record is written;
//! and when every standby has flushed it, all processes are killed. What was acknowledged in any way,
//! without waiting for a standby too, lies before that record.
//!
//! The data directory looks like that of a server that crashed right after a checkpoint, with not a
//! byte that the new primary has not: it follows without a rewind. What a shutdown would have done
//! besides is not left out where it matters: with segments that wait for the archiver, with no standby
//! that streams, or where a crash could not be recovered from, it is an ordinary [`Server::stop`], and so
//! it is when anything here takes too long.
//!
//! An agent that is killed in between leaves a postmaster that nobody can reach. The next one finds the
//! mark beside the data and takes the server for held, which goes on or is ended as its region stands.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use tier0_core::order::{EndedSessions, Fact};
use tier0_core::words::WalPosition;

use crate::deadline::Deadline;
use crate::ended;
use crate::node::Server;
use crate::process::{self, Postmaster};
use crate::session::Session;
use crate::trouble::{Attempt, Trouble};

/// How long the standbys are given for the last record. One that says what it has only now and then
/// would be waited for in vain; a shutdown asks it.
const STANDBYS: Duration = Duration::from_millis(400);

/// How long sessions are given to end.
const SESSIONS: Duration = Duration::from_millis(400);

/// This session's process, and whether this way can be gone. Nothing on a standby. A session with parallel
/// workers does not end before the postmaster has seen them end (`parallel.c`
/// `WaitForParallelWorkersToExit`).
const PROLOGUE: &str = "\
    SELECT pg_backend_pid(), \
        current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' \
        AND EXISTS (SELECT FROM pg_stat_get_wal_senders() WHERE state = 'streaming') \
        AND NOT EXISTS \
            (SELECT FROM pg_stat_get_activity(NULL) WHERE backend_type = 'parallel worker') \
    WHERE NOT pg_is_in_recovery()";

/// Who else is there that could write. (The functions behind the views: planning those takes longer than
/// all the rest.)
const OTHERS: &str = "\
    SELECT count(*) FROM pg_stat_get_activity(NULL) \
    WHERE pid <> pg_backend_pid() AND backend_type NOT IN \
        ('walsender', 'checkpointer', 'background writer', 'walwriter', 'archiver')";

/// Its commit flushes everything before it, and waits for no standby in a session of the agent's.
const LAST_RECORD: &str = "SELECT pg_logical_emit_message(true, 'tier0', 'the end')";

/// Postmaster that lets nobody in. Goes on when this is dropped; a file says so to the next agent, should
/// this one be killed before.
struct Closed<'a> {
    postmaster: &'a Postmaster,
    mark: &'a Path,
}

impl<'a> Closed<'a> {
    fn close(postmaster: &'a Postmaster, mark: &'a Path) -> Attempt<Closed<'a>> {
        // The file first: whoever comes after must know.
        std::fs::write(mark, b"").map_err(Trouble::io(mark.display()))?;
        let closed = Closed { postmaster, mark };
        postmaster.signal(Signal::STOP).map_err(Trouble::io("stop the postmaster"))?;
        Ok(closed)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.postmaster.signal(Signal::CONT) {
            tracing::error!(%error, "the postmaster stays stopped");
            return;
        }
        if let Err(error) = std::fs::remove_file(self.mark) {
            tracing::warn!(%error, "a mark of a stop that has ended stays");
        }
    }
}

impl Server {
    /// Whether an earlier agent was killed while it ended the primary, and left the postmaster, most likely
    /// stopped.
    pub(crate) fn is_left_ending(&self) -> io::Result<bool> {
        Ok(self.node.paths.ending.try_exists()?
            && Postmaster::find(&self.node.paths.data)?.is_some())
    }

    /// Somebody else sees to what was left.
    pub(crate) fn forget_ending(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.node.paths.ending) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// End the primary where its standbys have everything of it, or stop it as any server.
    pub(crate) async fn stop_proven(&self, deadline: Deadline) -> Attempt<Fact> {
        let half = Deadline::after(deadline.left() / 2);
        let mut ended = None;
        match tokio::time::timeout(half.left(), self.end_proven(&mut ended, half)).await {
            Ok(Ok(ControlFlow::Break(fact))) => {
                self.looking.forget().await;
                self.ordering.forget().await;
                return Ok(fact);
            }
            Ok(Ok(ControlFlow::Continue(why))) => {
                tracing::info!(node = %self.node.settings.node, why, "an ordinary stop");
            }
            Ok(Err(trouble)) => {
                tracing::info!(node = %self.node.settings.node, %trouble, "an ordinary stop");
            }
            Err(_) => {
                tracing::info!(node = %self.node.settings.node, "an ordinary stop, it took too long");
            }
        }
        self.stop_after(ended, deadline).await
    }

    /// Whoever is about to be told to end is noted in `whom`, whatever follows.
    async fn end_proven(
        &self,
        whom: &mut Option<EndedSessions>,
        deadline: Deadline,
    ) -> Attempt<ControlFlow<Fact, &'static str>> {
        let Some(postmaster) = self.running()? else {
            return Ok(ControlFlow::Continue("it is down"));
        };
        let began = Instant::now();
        let session = self.session(deadline).await?;
        let prologue = session.rows(PROLOGUE, deadline.left()).await?;
        let [prologue] = &prologue[..] else {
            return Ok(ControlFlow::Continue("it is a standby"));
        };
        let field = |at: usize| prologue.get(at).and_then(Option::as_deref).unwrap_or_default();
        let Ok(own) = field(0).parse() else {
            return Err(Trouble::failed("unexpected answer"));
        };
        if field(1) != "t" {
            let why = "no standby streams, workers run, or a crash is not recovered from";
            return Ok(ControlFlow::Continue(why));
        }
        if self.waits_for_archiver()? {
            return Ok(ControlFlow::Continue("segments wait for the archiver"));
        }
        let ended = ended::whom(&session, deadline.left()).await;
        let closed = Closed::close(&postmaster, &self.node.paths.ending)?;
        let asked = began.elapsed();
        *whom = Some(ended.clone());
        for other in postmaster.sessions_but(own) {
            // It may have ended by itself.
            let _ = pidfd_send_signal(&other, Signal::TERM);
        }
        let all = async {
            for other in postmaster.sessions_but(own) {
                process::ended(&other).await?;
            }
            Ok(())
        };
        match tokio::time::timeout(deadline.at_most(SESSIONS).left(), all).await {
            Ok(ended) => ended.map_err(Trouble::io("wait for a session's end"))?,
            Err(_) => return Ok(ControlFlow::Continue("a session does not end")),
        }
        let alone = began.elapsed();
        if session.value(OTHERS, deadline.left()).await? != "0" {
            return Ok(ControlFlow::Continue("somebody is still there"));
        }
        session.run(LAST_RECORD, deadline.left()).await?;
        let end = self.primary(&session, deadline).await?;
        let written = began.elapsed();
        self.until_everywhere(&session, &end, deadline).await?;
        let everywhere = began.elapsed();
        if self.waits_for_archiver()? {
            return Ok(ControlFlow::Continue("segments wait for the archiver"));
        }
        // Not waited for here: none of them runs another instruction of its own (signal(7)).
        closed.postmaster.kill().map_err(Trouble::io("kill the server"))?;
        drop(closed);
        *self.killed.lock().await = Some(postmaster);
        tracing::info!(?asked, ?alone, ?written, ?everywhere, "ended where its standbys have all");
        Ok(ControlFlow::Break(Fact::Stopped { clean_at: Some(end), ended }))
    }

    /// Wait until every standby has flushed up to there. One that cannot say so has at least written it,
    /// which is what a shutdown is content with (`walsender.c` `WalSndDone`).
    async fn until_everywhere(
        &self,
        session: &Session,
        end: &WalPosition,
        deadline: Deadline,
    ) -> Attempt<()> {
        let deadline = deadline.at_most(STANDBYS);
        let question = format!(
            "SELECT count(*) > 0 AND bool_and(coalesce(flush_lsn, write_lsn, '0/0') >= '{}') \
             FROM pg_stat_get_wal_senders() WHERE state IN ('streaming', 'catchup')",
            end.lsn
        );
        while session.value(&question, deadline.left()).await? != "t" {
            if deadline.passed() {
                return Err(Trouble::unknown("a standby has not flushed the last record"));
            }
            self.pause().await;
        }
        Ok(())
    }

    /// Whether the archiver has work left. A standby archives nothing that it has received, so nobody
    /// would do it later (`walreceiver.c` `XLogWalRcvClose`).
    fn waits_for_archiver(&self) -> Attempt<bool> {
        let directory = self.node.paths.data.join("pg_wal/archive_status");
        let entries = std::fs::read_dir(&directory).map_err(Trouble::io(directory.display()))?;
        let is_ready = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".ready"))
        };
        Ok(entries.into_iter().any(is_ready))
    }
}
