//! The sessions of one server, in three pools that cannot take each other's places: writes that wait
//! for a standby stop no reads, and the question what the server is gets through when both wait.

use std::sync::Arc;
use std::time::Duration;

use tier0_config::{NodeSettings, PostgresSettings, Secret};
use tier0_core::words::Region;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::Config;

use super::pool::Pool;
use super::session::{Attempt, SessionError};
use crate::backend::Role;
use crate::group::Group;
use crate::reading::{DeviceId, Reading};
use crate::selection::Selection;

/// Sessions for inserts and for the tables. With the two below it is all that a server ever has of
/// this service, however long it is frozen and however many requests come meanwhile (`pool`).
const WRITE_SESSIONS: usize = 8;

/// Sessions for reads.
const READ_SESSIONS: usize = 8;

/// Sessions for asking what the server is: one, and what may be left of a network that was cut.
const PROBE_SESSIONS: usize = 3;

/// How long connecting may take until the server's host has answered. What comes after it is waited
/// for as long as the connection stands (`pool`).
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How long a server may take to say what it is, connecting included.
const PROBE_LIMIT: Duration = Duration::from_millis(300);

/// An answer this young is not asked for again, however many requests look for the writer.
const PROBE_LIFE: Duration = Duration::from_millis(10);

/// One server.
pub(super) struct Node {
    region: Region,
    writes: Arc<Pool>,
    reads: Arc<Pool>,
    probes: Arc<Pool>,
    last: tokio::sync::Mutex<Option<(Instant, Role)>>,
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
            .connect_timeout(CONNECT_LIMIT)
            // A host that vanished answers nothing, not even a refusal.
            .tcp_user_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3);
        Node {
            region: node.region.clone(),
            writes: Pool::new(&config, WRITE_SESSIONS),
            reads: Pool::new(&config, READ_SESSIONS),
            probes: Pool::new(&config, PROBE_SESSIONS),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// Its region.
    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// Begin an insert. It runs on even when nobody waits for it, because leaving it would change
    /// nothing at the server but who knows of it.
    pub(super) async fn begin_insert(
        &self,
        group: &Arc<Group>,
    ) -> Result<JoinHandle<Attempt>, SessionError> {
        let mut held = self.writes.session().await?;
        let (writes, group) = (Arc::clone(&self.writes), Arc::clone(group));
        Ok(tokio::spawn(async move {
            let attempt = held.session.insert(&group).await;
            match attempt {
                Attempt::Stored { .. } | Attempt::Rejected { .. } => held.put_back(),
                // It may be read-only by now, and so may be the others.
                Attempt::NotStored { .. } | Attempt::Unknown { .. } => writes.forget(),
            }
            attempt
        }))
    }

    /// Bring the tables to the newest version.
    pub(super) async fn migrate(&self) -> Result<(), SessionError> {
        let held = self.writes.session().await?;
        ended(tokio::spawn(async move {
            let migrated = held.session.migrate().await;
            held.answered(migrated)
        }))
        .await
    }

    /// Make and drop partitions.
    pub(super) async fn keep_partitions(&self, hours: Option<i32>) -> Result<(), SessionError> {
        let held = self.writes.session().await?;
        ended(tokio::spawn(async move {
            let kept = held.session.keep_partitions(hours).await;
            held.answered(kept)
        }))
        .await
    }

    /// The newest reading of a device that this server knows.
    pub(super) async fn latest(&self, device: &DeviceId) -> Result<Option<Reading>, SessionError> {
        let (held, device) = (self.reads.session().await?, device.clone());
        ended(tokio::spawn(async move {
            let reading = held.session.latest(&device).await;
            held.answered(reading)
        }))
        .await
    }

    /// The readings that are selected, as far as this server knows them.
    pub(super) async fn select(&self, selection: &Selection) -> Result<Vec<Reading>, SessionError> {
        let (held, selection) = (self.reads.session().await?, selection.clone());
        ended(tokio::spawn(async move {
            let readings = held.session.select(&selection).await;
            held.answered(readings)
        }))
        .await
    }

    /// What the server says it is.
    pub(super) async fn probe(&self) -> Role {
        let asked = async {
            let mut last = self.last.lock().await;
            if let Some((at, role)) = *last
                && at.elapsed() < PROBE_LIFE
            {
                return role;
            }
            let role = match self.accepts_writes().await {
                Ok(true) => Role::Writer,
                Ok(false) => Role::Replica,
                Err(_) => Role::Unreachable,
            };
            *last = Some((Instant::now(), role));
            role
        };
        timeout(PROBE_LIMIT, asked).await.unwrap_or(Role::Unreachable)
    }

    async fn accepts_writes(&self) -> Result<bool, SessionError> {
        let held = self.probes.session().await?;
        ended(tokio::spawn(async move {
            let accepts = held.session.accepts_writes().await;
            held.answered(accepts)
        }))
        .await
    }
}

/// What a task found out that goes on when nobody waits for it any more.
async fn ended<T>(task: JoinHandle<Result<T, SessionError>>) -> Result<T, SessionError> {
    task.await.unwrap_or(Err(SessionError::Ending))
}
