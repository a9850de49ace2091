//! Probes of PostgreSQL. A write is the commit of a small message in WAL, which waits for the standby
//! like any commit and needs no table; the simple protocol goes through every pooler.
//!
//! A commit that waits for a standby keeps its place at the server also when nobody waits for it any
//! more (`syncrep.c` `SyncRepWaitForLSN`). So a statement that is late is waited for by the probes
//! after it, and given up less and less often: a prober must not take the places of those it speaks for.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tier0_config::{DatastoreSettings, PostgresSettings};
use tier0_core::availability::Access;
use tier0_core::words::Region;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{Client as Session, Config, NoTls, SimpleQueryMessage};

use super::{Client, Tried, nearest_first};

const WRITE: &str = "SELECT pg_logical_emit_message(true, 'tier0', 'availability')";
const READ: &str = "SELECT 1";
const IS_STANDBY: &str = "SHOW transaction_read_only";

/// How long each host may take to accept a connection.
const HOST_WITHIN: Duration = Duration::from_millis(250);
/// How long connecting may take as a whole.
const CONNECT_WITHIN: Duration = Duration::from_millis(700);

/// After this long without an answer a session is given up the first time; then after twice as long
/// each time, until one was served.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);
/// The longest that is waited for one.
const GIVEN_UP_AT_LAST: Duration = Duration::from_secs(60);

/// A client with one session.
pub struct PostgresClient {
    hosts: Vec<Host>,
    wants: Wants,
    connect_within: Duration,
    open: Option<Open>,
    sent: Option<Sent>,
    patience: Duration,
}

/// A server that may be the one. One that is a standby is asked again over the same session: while a
/// writer is being made, a new session for each question would take from the servers what they need for it.
struct Host {
    config: Config,
    standby: Option<Open>,
}

/// Whom a client wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// Who takes writes.
    Writer,
    /// Whoever answers.
    Anybody,
}

/// A statement that is on its way. Its session comes back with whether it was done.
struct Sent {
    at: Instant,
    answer: JoinHandle<(Open, bool)>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.answer.abort();
    }
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
        let config = config(settings(datastore)?)?;
        let hosts = nearest_first(datastore, region)
            .map(|address| {
                let mut config = host(&config, address);
                config.connect_timeout(HOST_WITHIN);
                Host { config, standby: None }
            })
            .collect();
        let wants = if access == Access::Write { Wants::Writer } else { Wants::Anybody };
        Ok(PostgresClient::new(hosts, wants, CONNECT_WITHIN))
    }

    /// Through a route, which may hold whoever connects.
    pub fn through(
        datastore: &DatastoreSettings,
        route: SocketAddr,
    ) -> anyhow::Result<PostgresClient> {
        let config = host(&config(settings(datastore)?)?, route);
        let hosts = vec![Host { config, standby: None }];
        Ok(PostgresClient::new(hosts, Wants::Anybody, super::WITHIN))
    }

    fn new(hosts: Vec<Host>, wants: Wants, connect_within: Duration) -> PostgresClient {
        PostgresClient {
            hosts,
            wants,
            connect_within,
            open: None,
            sent: None,
            patience: GIVEN_UP_AFTER,
        }
    }

    async fn connect(&mut self) -> Option<Open> {
        let wants = self.wants;
        let connecting = async {
            for host in &mut self.hosts {
                let Some(open) = host.session().await else { continue };
                if wants == Wants::Anybody {
                    return Some(open);
                }
                match timeout(HOST_WITHIN, open.is_standby()).await {
                    Ok(Some(false)) => return Some(open),
                    Ok(Some(true)) => host.standby = Some(open),
                    // It does not answer: another session, next time.
                    Ok(None) | Err(_) => {}
                }
            }
            None
        };
        timeout(self.connect_within, connecting).await.ok()?
    }
}

impl Host {
    async fn session(&mut self) -> Option<Open> {
        if let Some(open) = self.standby.take().filter(|open| !open.session.is_closed()) {
            return Some(open);
        }
        let (session, connection) = self.config.connect(NoTls).await.ok()?;
        let driver = Driver(tokio::spawn(async move {
            // How it ended is seen by whoever uses the session.
            let _ = connection.await;
        }));
        Some(Open { session, _driver: driver })
    }
}

impl Open {
    async fn is_standby(&self) -> Option<bool> {
        let answer = self.session.simple_query(IS_STANDBY).await.ok()?;
        answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(|value| value != "off"),
            _ => None,
        })
    }
}

impl PostgresClient {
    /// Wait for what an earlier probe sent, or give it up. Nothing is on its way afterwards.
    async fn settle(&mut self) {
        let Some(sent) = &mut self.sent else { return };
        match timeout_at(sent.at + self.patience, &mut sent.answer).await {
            Ok(Ok((open, true))) => self.open = Some(open),
            // The server may not be what it was.
            Ok(Ok((_, false)) | Err(_)) => {}
            Err(_) => self.patience = (self.patience * 2).min(GIVEN_UP_AT_LAST),
        }
        self.sent = None;
    }
}

impl Client for PostgresClient {
    // May be dropped at any await: what is on its way is in `sent` then.
    async fn attempt(&mut self, access: Access) -> Tried {
        self.settle().await;
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
        let answer = tokio::spawn(async move {
            let done = open.session.simple_query(statement).await.is_ok();
            (open, done)
        });
        let sent = self.sent.insert(Sent { at: Instant::now(), answer });
        let answered = (&mut sent.answer).await;
        self.sent = None;
        match answered {
            Ok((open, true)) => {
                self.open = Some(open);
                self.patience = GIVEN_UP_AFTER;
                Tried::Served
            }
            Ok((_, false)) | Err(_) => Tried::Refused,
        }
    }
}

fn host(config: &Config, address: SocketAddr) -> Config {
    let mut config = config.clone();
    config.host(address.ip().to_string()).port(address.port());
    config
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
