//! A client of the application through a route: whether a statement comes back, from a server that
//! takes writes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tier0_config::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Config;

use crate::console::{Row, Session};
use crate::{Attempt, failed, left};

/// What a standby says yes to.
const RECOVERS: &str = "SELECT pg_is_in_recovery()";
/// How long a server may take to answer that.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// How often it is asked while clients wait.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often a statement is tried again that does not come back.
const CONFIRM_EVERY: Duration = Duration::from_millis(5);
/// With less left than this, what was seen last is the answer: another try would see nothing.
const ONE_MORE_TRY: Duration = Duration::from_millis(25);

/// Whose clients a route serves.
#[derive(Debug, Clone)]
pub enum Client {
    /// PostgreSQL's.
    Postgres {
        /// The application's database.
        database: String,
        /// The application's role.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// Redis'.
    Redis {
        /// The password.
        password: Secret,
    },
}

/// A client's session that was there before clients go on. PgBouncer may let one that logs in while it
/// points elsewhere wait for a third of a second (`janitor.c`, `full_maint_period`), which nobody else does;
/// through a router it is one that was sent ahead.
pub(crate) type Along = Option<Session>;

impl Client {
    /// See a statement come back through `route` from a server that takes writes.
    pub(crate) async fn confirm(&self, route: SocketAddr, deadline: Instant) -> Attempt<()> {
        self.confirm_along(&mut None, route, deadline).await
    }

    /// The same, over a session that may have been there before.
    pub(crate) async fn confirm_along(
        &self,
        along: &mut Along,
        route: SocketAddr,
        deadline: Instant,
    ) -> Attempt<()> {
        loop {
            let refused = self.refused(along, route, left(deadline)).await;
            let Some(why) = refused else { return Ok(()) };
            if left(deadline) <= ONE_MORE_TRY {
                return Err(failed(format!("no statement came back through the route: {why}")));
            }
            tokio::time::sleep(CONFIRM_EVERY).await;
        }
    }

    /// Come to wait along with the clients of a route, before they are held.
    pub(crate) async fn come_along(&self, along: &mut Along, route: SocketAddr, limit: Duration) {
        if let Some(login) = self.login(route) {
            *along = Session::open(&login, limit).await.ok();
        }
    }

    /// How a client logs in through a route, where a server begins a process for it: Redis does not.
    pub(crate) fn login(&self, route: SocketAddr) -> Option<Config> {
        match self {
            Client::Postgres { database, user, password } => {
                Some(config(route, database, user, password))
            }
            Client::Redis { .. } => None,
        }
    }

    /// Wait until the server itself takes writes.
    pub(crate) async fn until_it_writes(&self, server: SocketAddr) {
        // A session with PostgreSQL is kept while it is a standby; Redis is asked anew each time.
        while self.holds_back(server).await {
            tokio::time::sleep(CONFIRM_EVERY).await;
        }
    }

    async fn holds_back(&self, server: SocketAddr) -> bool {
        let (database, user, password) = match self {
            Client::Postgres { database, user, password } => (database, user, password),
            Client::Redis { .. } => {
                return self.refused(&mut None, server, LOOK).await.is_some();
            }
        };
        let Ok(session) = Session::open(&config(server, database, user, password), LOOK).await
        else {
            return true;
        };
        while let Ok(recovers) = session.rows(RECOVERS, LOOK).await {
            if says_no(&recovers) {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Why none came back; nothing if one did.
    async fn refused(
        &self,
        along: &mut Along,
        route: SocketAddr,
        limit: Duration,
    ) -> Option<String> {
        match self {
            Client::Postgres { database, user, password } => {
                let before = along.take().filter(|session| !session.is_closed());
                let limit = if before.is_some() { limit.min(LOOK) } else { limit };
                let session = match before {
                    Some(session) => Ok(session),
                    None => Session::open(&config(route, database, user, password), limit).await,
                };
                let found = match &session {
                    Ok(session) => session.rows(RECOVERS, limit).await,
                    Err(error) => return Some(error.to_string()),
                };
                match found {
                    Ok(rows) if says_no(&rows) => None,
                    Ok(_) => {
                        *along = session.ok();
                        Some("the server is a standby".to_owned())
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
            Client::Redis { password } => {
                match tokio::time::timeout(limit, role(route, password)).await {
                    Ok(Ok(Role::TakesWrites)) => None,
                    Ok(Ok(Role::Replica)) => Some("the server is a replica".to_owned()),
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some(format!("no answer within {} ms", limit.as_millis())),
                }
            }
        }
    }
}

fn says_no(rows: &[Row]) -> bool {
    let value = rows.first().and_then(|row| row.values().next());
    value.map(String::as_str) == Some("f")
}

fn config(route: SocketAddr, database: &str, user: &str, password: &Secret) -> Config {
    let mut config = Config::new();
    config
        .host(route.ip().to_string())
        .port(route.port())
        .user(user)
        .password(password.expose())
        .dbname(database);
    config
}

/// How a Redis is.
enum Role {
    /// A master that takes writes.
    TakesWrites,
    /// A replica.
    Replica,
}

/// How much a Redis may say.
const WORDS_MOST: usize = 4_096;
/// A write that changes nothing: it keeps all of a list, and refuses what is none. Whether writes are
/// taken at all is looked at first (`server.c`, `processCommand`).
const NOTHING: &str = "LTRIM tier0:takes-writes 0 -1";

/// What a Redis says of its role, and whether it takes a write: a master that is fenced or paused does
/// not.
async fn role(route: SocketAddr, password: &Secret) -> std::io::Result<Role> {
    let mut stream = TcpStream::connect(route).await?;
    let password = password.expose();
    let ask = format!(
        "*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n*1\r\n$4\r\nROLE\r\n{NOTHING}\r\n",
        password.len()
    );
    stream.write_all(ask.as_bytes()).await?;
    let mut said = Vec::new();
    let mut buffer = [0; 512];
    while said.len() < WORDS_MOST {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        said.extend_from_slice(&buffer[..read]);
        if let Some(role) = understood(&String::from_utf8_lossy(&said)) {
            return role;
        }
    }
    Err(std::io::Error::other("it does not speak as a Redis does"))
}

/// What it has said so far comes to this; nothing where more has to come.
fn understood(said: &str) -> Option<std::io::Result<Role>> {
    // Whole lines only.
    let (whole, _) = said.rsplit_once("\r\n")?;
    let lines = || whole.split("\r\n");
    if lines().any(|line| line == "slave") {
        return Some(Ok(Role::Replica));
    }
    // One for the password, and one for the write.
    let agreed = lines().filter(|line| *line == "+OK").count();
    match lines().find_map(|line| line.strip_prefix('-')) {
        None if agreed == 2 => Some(Ok(Role::TakesWrites)),
        None => None,
        // It would have taken one.
        Some(error) if error.starts_with("WRONGTYPE") => Some(Ok(Role::TakesWrites)),
        Some(error) => Some(Err(std::io::Error::other(error.to_owned()))),
    }
}
