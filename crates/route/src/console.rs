//! Sessions with PgBouncer: its admin console by the Unix socket, and one of a client through it.
//! The console speaks the simple protocol only, and answers in text.

use std::collections::BTreeMap;
use std::time::Duration;

use tier0_core::order::Outcome;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage};

use crate::{failed, unknown};

/// Why a session or a statement did not come to be.
#[derive(Debug)]
pub(crate) enum ConsoleError {
    /// No connection: nobody listens, or it refuses.
    Connect(tokio_postgres::Error),
    /// It answered with an error.
    Answered(tokio_postgres::Error),
    /// The connection broke before the answer.
    Lost(tokio_postgres::Error),
    /// No answer in time.
    Late(Duration),
}

impl std::fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConsoleError::Connect(error) => write!(f, "connect: {}", described(error)),
            ConsoleError::Answered(error) => f.write_str(&described(error)),
            ConsoleError::Lost(error) => write!(f, "connection lost: {}", described(error)),
            ConsoleError::Late(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
        }
    }
}

fn described(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(answer) => answer.message().to_owned(),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

impl ConsoleError {
    /// What it means for an order that did `doing`.
    pub(crate) fn outcome(&self, doing: &str) -> Outcome {
        let why = format!("{doing}: {self}");
        match self {
            ConsoleError::Connect(_) | ConsoleError::Answered(_) => failed(why),
            ConsoleError::Lost(_) | ConsoleError::Late(_) => unknown(why),
        }
    }
}

/// A row: column to text.
pub(crate) type Row = BTreeMap<String, String>;

/// One session. Ends when dropped, also where the other side is frozen.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Connect within `limit`, which covers all of it.
    pub(crate) async fn open(config: &Config, limit: Duration) -> Result<Self, ConsoleError> {
        Session::begin(config.connect(NoTls), limit).await
    }

    /// Log in within `limit` over a connection that is there.
    pub(crate) async fn over(
        stream: TcpStream,
        config: &Config,
        limit: Duration,
    ) -> Result<Self, ConsoleError> {
        Session::begin(config.connect_raw(stream, NoTls), limit).await
    }

    async fn begin<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        connecting: impl Future<
            Output = Result<(Client, Connection<S, NoTlsStream>), tokio_postgres::Error>,
        >,
        limit: Duration,
    ) -> Result<Self, ConsoleError> {
        let connecting = tokio::time::timeout(limit, connecting).await;
        let (client, connection) =
            connecting.map_err(|_| ConsoleError::Late(limit))?.map_err(ConsoleError::Connect)?;
        let task = tokio::spawn(async move {
            // Its error is also what the client's next call answers.
            let _ = connection.await;
        });
        Ok(Session { client, task })
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Run a statement by the simple protocol and return its rows.
    pub(crate) async fn rows(
        &self,
        statement: &str,
        limit: Duration,
    ) -> Result<Vec<Row>, ConsoleError> {
        let answer = tokio::time::timeout(limit, self.client.simple_query(statement)).await;
        let messages = answer.map_err(|_| ConsoleError::Late(limit))?.map_err(|error| {
            if error.as_db_error().is_some() {
                ConsoleError::Answered(error)
            } else {
                ConsoleError::Lost(error)
            }
        })?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows
            .map(|row| {
                let columns = row.columns().iter().enumerate();
                columns
                    .map(|(at, column)| {
                        (column.name().to_owned(), row.get(at).unwrap_or_default().to_owned())
                    })
                    .collect()
            })
            .collect())
    }
}

/// A database's name as a word of the console.
pub(crate) fn word(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
