//! A bounded number of sessions with one server, and the rule that keeps it bounded at the server too.
//!
//! A backend that waits for a standby, for a lock, or in a process that is frozen does not notice that
//! its client has gone, and keeps its place among `max_connections`. So a session counts from before it
//! is opened until its server has answered, or the network has declared the connection dead: whoever
//! gives up leaves it to a task that goes on waiting, and does not get another in its place. Closing it
//! and opening a new one with every attempt would fill the server within seconds, for everybody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Config;

use super::session::{Session, SessionError};

/// Sessions of one kind with one server.
pub(super) struct Pool {
    config: Config,
    permits: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    sessions: Vec<Session>,
    /// How many times everything was forgotten.
    generation: u64,
}

/// A session that is somebody's. It leaves the pool with whoever drops it.
pub(super) struct Held {
    pub(super) session: Session,
    pool: Arc<Pool>,
    generation: u64,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// So many sessions at most. Connects to nothing yet.
    pub(super) fn new(config: &Config, most: usize) -> Arc<Pool> {
        Arc::new(Pool {
            config: config.clone(),
            permits: Arc::new(Semaphore::new(most)),
            idle: Mutex::default(),
        })
    }

    /// A session that nobody else has. Whoever asks questions with it does so in a task of their own,
    /// which is not ended before the answer came.
    pub(super) async fn session(self: &Arc<Pool>) -> Result<Held, SessionError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| SessionError::Ending)?;
        let pool = Arc::clone(self);
        // A task, so that a connection that is half open is not left behind uncounted.
        let opened = tokio::spawn(async move {
            let (found, generation) = pool.take_idle();
            let session = match found {
                Some(session) => session,
                None => Session::open(&pool.config).await?,
            };
            Ok(Held { session, pool, generation, _permit: permit })
        });
        opened.await.unwrap_or(Err(SessionError::Ending))
    }

    /// Hand none of the sessions out again that stand now: the server is not what it was.
    pub(super) fn forget(&self) {
        let mut idle = self.idle();
        idle.generation += 1;
        idle.sessions.clear();
    }

    fn take_idle(&self) -> (Option<Session>, u64) {
        let mut idle = self.idle();
        idle.sessions.retain(Session::is_open);
        (idle.sessions.pop(), idle.generation)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Back into the pool, unless the pool has forgotten its sessions since this one was taken.
    pub(super) fn put_back(self) {
        let Held { session, pool, generation, _permit } = self;
        let mut idle = pool.idle();
        if idle.generation == generation {
            idle.sessions.push(session);
        }
    }

    /// Back into the pool if its server answered, else dropped.
    pub(super) fn answered<T>(self, answer: Result<T, SessionError>) -> Result<T, SessionError> {
        if answer.is_ok() {
            self.put_back();
        }
        answer
    }
}
