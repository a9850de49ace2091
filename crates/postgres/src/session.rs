//! Sessions with a server: the agent's own by the Unix socket, and those with the upstream.
//!
//! Every call is bounded as a whole. A driver's connect time-out covers only the TCP handshake, so
//! a frozen postmaster would hold it for ever; and a connection's task lives on after its client
//! is dropped unless it is aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tier0_config::{NodeSettings, Secret};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::settings::Checked;
use crate::trouble::Trouble;

/// Why a session or a statement did not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// No connection.
    #[error("connect: {}", described(.0))]
    Connect(tokio_postgres::Error),
    /// The server answered with an error.
    #[error("{}", described(.0))]
    Answered(tokio_postgres::Error),
    /// The connection broke before the answer.
    #[error("connection lost: {}", described(.0))]
    Lost(tokio_postgres::Error),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The answer has not the form that was asked for.
    #[error("unexpected answer: {0}")]
    Form(&'static str),
}

fn described(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(answer) => format!("{} ({})", answer.message(), answer.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Trouble {
        match &error {
            SessionError::Connect(_) | SessionError::Answered(_) | SessionError::Form(_) => {
                Trouble::failed(error.to_string())
            }
            SessionError::Lost(_) | SessionError::Late(_) => Trouble::unknown(error.to_string()),
        }
    }
}

/// One session. Ends when dropped, also where the server is frozen.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    task: JoinHandle<()>,
    /// Whether the server has the plan of what is asked again and again.
    planned: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    async fn open(config: &Config, limit: Duration) -> Result<Self, SessionError> {
        let connecting = tokio::time::timeout(limit, config.connect(NoTls)).await;
        let (client, connection) =
            connecting.map_err(|_| SessionError::Late(limit))?.map_err(SessionError::Connect)?;
        let task = tokio::spawn(async move {
            // Its error is also what the client's next call answers.
            let _ = connection.await;
        });
        Ok(Session { client, task, planned: AtomicBool::new(false) })
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Run statements and return the rows of the last one that has any, as text.
    pub(crate) async fn rows(
        &self,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<Vec<Option<String>>>, SessionError> {
        let answer = tokio::time::timeout(limit, self.client.simple_query(sql)).await;
        let messages = answer.map_err(|_| SessionError::Late(limit))?.map_err(|error| {
            // Class 57P is the server going down: it says nothing about the statement.
            match error.as_db_error() {
                Some(answer) if !answer.code().code().starts_with("57P") => {
                    SessionError::Answered(error)
                }
                Some(_) | None => SessionError::Lost(error),
            }
        })?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// Run a statement whose rows do not matter.
    pub(crate) async fn run(&self, sql: &str, limit: Duration) -> Result<(), SessionError> {
        self.rows(sql, limit).await.map(|_| ())
    }

    /// The fields of the only row.
    pub(crate) async fn row(
        &self,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<Option<String>>, SessionError> {
        let rows = self.rows(sql, limit).await?;
        rows.into_iter().next().ok_or(SessionError::Form("no row"))
    }

    /// The only field of the only row, which must not be null.
    pub(crate) async fn value(&self, sql: &str, limit: Duration) -> Result<String, SessionError> {
        let row = self.row(sql, limit).await?;
        row.into_iter().next().flatten().ok_or(SessionError::Form("a null"))
    }

    /// The same of a statement that is asked again and again, always the same one: it is planned once,
    /// which takes several times as long as to carry it out.
    pub(crate) async fn planned_value(
        &self,
        sql: fn() -> String,
        limit: Duration,
    ) -> Result<String, SessionError> {
        if !self.planned.load(Ordering::Relaxed) {
            self.run(&format!("PREPARE look AS {}", sql()), limit).await?;
            self.planned.store(true, Ordering::Relaxed);
        }
        self.value("EXECUTE look", limit).await
    }
}

/// Who the agent's own sessions say they are. Sessions whose name begins with `tier0-` are not
/// counted as clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The kept sessions.
    Agent,
    /// A commit that is meant to wait.
    Canary,
}

impl Checked {
    /// A session of the admin role with `database`, by the Unix socket.
    pub(crate) async fn admin(
        &self,
        database: &str,
        purpose: Purpose,
        limit: Duration,
    ) -> Result<Session, SessionError> {
        let (name, options) = match purpose {
            // The agent's own bookkeeping must not hang on a standby that is gone.
            Purpose::Agent => ("tier0-agent", "-c synchronous_commit=local"),
            Purpose::Canary => ("tier0-canary", "-c synchronous_commit=on"),
        };
        let mut config = Config::new();
        config
            .host_path(&self.paths.socket)
            .port(self.own.address.port())
            .user(&self.settings.postgres.admin_user)
            .dbname(database)
            .application_name(name)
            .options(options);
        Session::open(&config, limit).await
    }

    /// A session of the replication role with the database `postgres` of another node.
    pub(crate) async fn upstream(
        &self,
        upstream: &NodeSettings,
        password: &Secret,
        limit: Duration,
    ) -> Result<Session, SessionError> {
        let mut config = Config::new();
        config
            .host(upstream.address.ip().to_string())
            .port(upstream.address.port())
            .user(&self.settings.postgres.replication_user)
            .password(password.expose())
            .dbname("postgres")
            .application_name("tier0-follow");
        Session::open(&config, limit).await
    }
}

/// A session of the admin role that is kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    session: Mutex<Option<Arc<Session>>>,
}

impl Kept {
    /// The kept session, or a new one.
    pub(crate) async fn get(
        &self,
        node: &Checked,
        limit: Duration,
    ) -> Result<Arc<Session>, SessionError> {
        let mut kept = self.session.lock().await;
        match &*kept {
            Some(session) if !session.is_closed() => Ok(session.clone()),
            Some(_) | None => {
                *kept = None;
                let session = Arc::new(node.admin("postgres", Purpose::Agent, limit).await?);
                *kept = Some(session.clone());
                Ok(session)
            }
        }
    }

    /// Connect if there is no session and nobody is at it.
    pub(crate) async fn warm_up(&self, node: &Checked, limit: Duration) {
        let Ok(mut kept) = self.session.try_lock() else { return };
        if kept.as_ref().is_none_or(|session| session.is_closed()) {
            // Whoever needs it next meets the error then.
            *kept = node.admin("postgres", Purpose::Agent, limit).await.ok().map(Arc::new);
        }
    }

    /// Let the kept session go, after it did not answer.
    pub(crate) async fn forget(&self) {
        *self.session.lock().await = None;
    }
}
