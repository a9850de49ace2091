//! Probes of PostgreSQL. A write is the commit of a small message in WAL, which waits for the standby
//! like any commit and needs no table; the simple protocol goes through every pooler.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tier0_config::{DatastoreSettings, PostgresSettings};
use tier0_core::availability::Access;
use tier0_core::words::Region;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client as Session, Config, NoTls};

use super::{Client, Tried};

const WRITE: &str = "SELECT pg_logical_emit_message(true, 'tier0', 'availability')";
const READ: &str = "SELECT 1";

/// How long each host may take to accept a connection.
const HOST_WITHIN: Duration = Duration::from_millis(250);
/// How long connecting may take as a whole.
const CONNECT_WITHIN: Duration = Duration::from_millis(700);

/// A client with one session.
pub struct PostgresClient {
    config: Config,
    connect_within: Duration,
    open: Option<Open>,
}

struct Open {
    session: Session,
    _driver: Driver,
}

/// The connection's task, which ends with its session.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PostgresClient {
    /// By the list of the nodes, that of this region first.
    pub fn direct(
        datastore: &DatastoreSettings,
        region: &Region,
        access: Access,
    ) -> anyhow::Result<PostgresClient> {
        let mut config = config(settings(datastore)?)?;
        let (here, away): (Vec<_>, Vec<_>) =
            datastore.nodes.iter().partition(|node| node.region == *region);
        for node in here.into_iter().chain(away) {
            config.host(node.address.ip().to_string()).port(node.address.port());
        }
        config.connect_timeout(HOST_WITHIN);
        if access == Access::Write {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(PostgresClient { config, connect_within: CONNECT_WITHIN, open: None })
    }

    /// Through a route, which may hold whoever connects.
    pub fn through(
        datastore: &DatastoreSettings,
        route: SocketAddr,
    ) -> anyhow::Result<PostgresClient> {
        let mut config = config(settings(datastore)?)?;
        config.host(route.ip().to_string()).port(route.port());
        Ok(PostgresClient { config, connect_within: super::WITHIN, open: None })
    }

    async fn connect(&self) -> Option<Open> {
        let connecting = self.config.connect(NoTls);
        let (session, connection) = timeout(self.connect_within, connecting).await.ok()?.ok()?;
        let driver = Driver(tokio::spawn(async move {
            // How it ended is seen by whoever uses the session.
            let _ = connection.await;
        }));
        Some(Open { session, _driver: driver })
    }
}

impl Client for PostgresClient {
    async fn attempt(&mut self, access: Access) -> Tried {
        // Taken out: a session that did not answer is dropped with this future.
        let open = match self.open.take().filter(|open| !open.session.is_closed()) {
            Some(open) => open,
            None => match self.connect().await {
                Some(open) => open,
                None => return Tried::NotConnected,
            },
        };
        let statement = match access {
            Access::Write => WRITE,
            Access::Read => READ,
        };
        match open.session.simple_query(statement).await {
            Ok(_) => {
                self.open = Some(open);
                Tried::Served
            }
            // The server may not be what it was.
            Err(_) => Tried::Refused,
        }
    }
}

fn settings(datastore: &DatastoreSettings) -> anyhow::Result<&PostgresSettings> {
    datastore.postgres.as_ref().context("it is not PostgreSQL")
}

fn config(settings: &PostgresSettings) -> anyhow::Result<Config> {
    let password = settings
        .application_password_file
        .read()
        .context("read the password of the application")?;
    let mut config = Config::new();
    config
        .user(&settings.application_user)
        .password(password.expose())
        .dbname(&settings.database)
        .application_name("tier0-prober")
        .tcp_user_timeout(Duration::from_secs(5));
    Ok(config)
}
