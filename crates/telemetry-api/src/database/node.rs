//! The sessions of one server: a small pool for requests, and one session of its own for asking
//! what the server is, so that the question gets through when every other session waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tier0_config::{NodeSettings, PostgresSettings, Secret};
use tier0_core::words::Region;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::Config;

use super::session::{Attempt, Session, SessionError};
use crate::backend::Role;
use crate::group::Group;
use crate::reading::{DeviceId, Reading};
use crate::selection::Selection;

/// Sessions for requests. An insert that nobody waits for any more keeps its session until the
/// server answers, so this also bounds what a stalled server is left with.
const SESSIONS: usize = 8;

/// How long a server may take to say what it is, connecting included.
const PROBE_LIMIT: Duration = Duration::from_millis(300);

/// An answer this young is not asked for again, however many requests look for the writer.
const PROBE_LIFE: Duration = Duration::from_millis(10);

/// One server.
pub(super) struct Node {
    region: Region,
    config: Config,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    prober: tokio::sync::Mutex<Prober>,
}

#[derive(Default)]
struct Prober {
    session: Option<Session>,
    last: Option<(Instant, Role)>,
}

impl Node {
    /// The server with these settings. Connects to nothing yet.
    pub(super) fn new(node: &NodeSettings, settings: &PostgresSettings, password: &Secret) -> Node {
        let mut config = Config::new();
        config
            .host(node.address.ip().to_string())
            .port(node.address.port())
            .user(&settings.application_user)
            .password(password.expose())
            .dbname(&settings.database)
            .application_name("telemetry-api")
            // A host that vanished answers nothing, not even a refusal.
            .tcp_user_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3);
        Node {
            region: node.region.clone(),
            config,
            permits: Arc::new(Semaphore::new(SESSIONS)),
            idle: Mutex::new(Vec::new()),
            prober: tokio::sync::Mutex::default(),
        }
    }

    /// Its region.
    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// Begin an insert. It runs on even when nobody waits for it, because leaving it would change
    /// nothing at the server but who knows of it.
    pub(super) async fn begin_insert(
        self: &Arc<Node>,
        group: &Arc<Group>,
    ) -> Result<JoinHandle<Attempt>, SessionError> {
        let (permit, mut session) = self.session().await?;
        let (node, group) = (Arc::clone(self), Arc::clone(group));
        Ok(tokio::spawn(async move {
            let attempt = session.insert(&group).await;
            match attempt {
                Attempt::Stored { .. } | Attempt::Rejected { .. } => node.put_back(session),
                // The server is not what it was; what other sessions know of it is stale too.
                Attempt::NotStored { .. } | Attempt::Unknown { .. } => node.forget_idle(),
            }
            drop(permit);
            attempt
        }))
    }

    /// Bring the tables to the newest version.
    pub(super) async fn migrate(&self) -> Result<(), SessionError> {
        let (_permit, session) = self.session().await?;
        session.migrate().await?;
        self.put_back(session);
        Ok(())
    }

    /// The newest reading of a device that this server knows.
    pub(super) async fn latest(&self, device: &DeviceId) -> Result<Option<Reading>, SessionError> {
        let (_permit, session) = self.session().await?;
        let reading = session.latest(device).await?;
        self.put_back(session);
        Ok(reading)
    }

    /// The readings that are selected, as far as this server knows them.
    pub(super) async fn select(&self, selection: &Selection) -> Result<Vec<Reading>, SessionError> {
        let (_permit, session) = self.session().await?;
        let readings = session.select(selection).await?;
        self.put_back(session);
        Ok(readings)
    }

    /// What the server says it is.
    pub(super) async fn probe(&self) -> Role {
        let asked = async {
            let mut prober = self.prober.lock().await;
            if let Some((at, role)) = prober.last
                && at.elapsed() < PROBE_LIFE
            {
                return role;
            }
            // Taken out, so that one that does not answer is dropped with this future.
            let session = match prober.session.take() {
                Some(session) if session.is_open() => session,
                Some(_) | None => match Session::open(&self.config).await {
                    Ok(session) => session,
                    Err(_) => {
                        prober.last = Some((Instant::now(), Role::Unreachable));
                        return Role::Unreachable;
                    }
                },
            };
            let role = match session.accepts_writes().await {
                Ok(true) => Role::Writer,
                Ok(false) => Role::Replica,
                Err(_) => Role::Unreachable,
            };
            if role != Role::Unreachable {
                prober.session = Some(session);
            }
            prober.last = Some((Instant::now(), role));
            role
        };
        timeout(PROBE_LIMIT, asked).await.unwrap_or(Role::Unreachable)
    }

    async fn session(&self) -> Result<(OwnedSemaphorePermit, Session), SessionError> {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        while let Some(session) = self.take_idle() {
            if session.is_open() {
                return Ok((permit, session));
            }
        }
        Ok((permit, Session::open(&self.config).await?))
    }

    fn take_idle(&self) -> Option<Session> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
