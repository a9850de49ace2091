//! Whether commits come back: small real ones that wait for no standby, over a session that is kept
//! and over fresh ones. A frozen postmaster leaves open sessions working, a frozen backend new
//! ones, and a stuck disk neither, though every query is answered.
//!
//! Only a primary that lets clients in is probed. The commit is that of a message in WAL
//! (`logicalfuncs.c`, `pg_logical_emit_message`), so that no table is written.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tier0_core::observe::{CommitProbe, PostgresRole, ProcessState};

use crate::hba::Clients;
use crate::node::Server;
use crate::process::Postmaster;
use crate::session::{Kept, Purpose, SessionError};

/// How often each way is tried.
const EVERY: Duration = Duration::from_millis(250);

/// How long a commit may take before it counts as not come back.
const WITHIN: Duration = Duration::from_millis(500);

/// Transactional, so that its commit is flushed like a client's.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'tier0', 'probe')";

/// One way of committing.
#[derive(Debug, Clone, Default)]
struct Way {
    returned: Option<Instant>,
    /// How long that one took.
    took: Option<Duration>,
    why: Option<String>,
}

impl Way {
    fn ended(&mut self, began: Instant, outcome: Result<(), SessionError>) {
        match outcome {
            Ok(()) => {
                let took = Some(began.elapsed());
                *self = Way { returned: Some(Instant::now()), took, why: None };
            }
            Err(error) => {
                // Never seen to work: it counts from here.
                self.returned.get_or_insert_with(Instant::now);
                self.why = Some(error.to_string());
            }
        }
    }

    fn failing_ms(&self) -> u64 {
        match (&self.why, self.returned) {
            (Some(_), Some(returned)) => {
                u64::try_from(returned.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            (Some(_), None) | (None, _) => 0,
        }
    }

    /// How long the newest took, where that is the newest that was tried.
    fn took_ms(&self) -> Option<u64> {
        let took = self.took.filter(|_| self.why.is_none())?;
        u64::try_from(took.as_millis()).ok()
    }
}

/// What is known of both ways.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    session: Kept,
    kept: Mutex<Option<Way>>,
    fresh: Mutex<Option<Way>>,
}

fn locked(way: &Mutex<Option<Way>>) -> std::sync::MutexGuard<'_, Option<Way>> {
    // A panic while holding it leaves plain values behind, which stay usable.
    way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probes {
    /// What a look says of them.
    pub(crate) fn view(&self) -> Option<CommitProbe> {
        let (kept, fresh) = (locked(&self.kept).clone()?, locked(&self.fresh).clone()?);
        Some(CommitProbe {
            kept_failing_ms: kept.failing_ms(),
            fresh_failing_ms: fresh.failing_ms(),
            kept_took_ms: kept.took_ms(),
            fresh_took_ms: fresh.took_ms(),
            why: kept.why.or(fresh.why),
        })
    }

    fn forget(&self) {
        *locked(&self.kept) = None;
        *locked(&self.fresh) = None;
    }
}

impl Server {
    /// Probe for ever.
    pub(crate) async fn keep_probing(&self) {
        tokio::join!(self.probe_kept(), self.probe_fresh());
    }

    async fn probe_kept(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if !self.is_probed() {
                self.probes.forget();
                self.probes.session.forget().await;
                continue;
            }
            let began = Instant::now();
            let outcome = match self.probes.session.get(&self.node, WITHIN).await {
                Ok(session) => session.run(COMMIT, WITHIN).await,
                Err(error) => Err(error),
            };
            if outcome.is_err() {
                self.probes.session.forget().await;
            }
            locked(&self.probes.kept).get_or_insert_default().ended(began, outcome);
        }
    }

    async fn probe_fresh(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if !self.is_probed() {
                continue;
            }
            let began = Instant::now();
            let opened = self.node.admin("postgres", Purpose::Agent, WITHIN).await;
            let outcome = match opened {
                Ok(session) => session.run(COMMIT, WITHIN).await,
                Err(error) => Err(error),
            };
            locked(&self.probes.fresh).get_or_insert_default().ended(began, outcome);
        }
    }

    /// Whether there is a primary that lets clients in, by what the newest look saw.
    fn is_probed(&self) -> bool {
        self.clients() == Clients::Admitted
            && !self.node.paths.data.join("standby.signal").exists()
            && matches!(Postmaster::find(&self.node.paths.data), Ok(Some(_)))
    }
}

/// Whether a look may speak of commits.
pub(crate) fn speaks(process: ProcessState, role: Option<PostgresRole>) -> bool {
    process == ProcessState::Running && role == Some(PostgresRole::Primary)
}
