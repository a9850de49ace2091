//! One kept connection to one server. Several callers take turns; nothing is shared with client
//! traffic, since a write that `CLIENT PAUSE` holds would hold everything queued behind it.
//!
//! The `redis` crate parses and frames; deadlines, reopening and repeating are here, because a
//! time-out must end the connection (the answer may still come) and never be mistaken for "no".

use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, Value,
};
use tier0_config::Secret;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::reply::first_error;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No connection, so the question was never put.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// No answer in time. It may have been done, or may yet be.
    #[error("{address} has not answered within {after_ms} ms")]
    Silent {
        /// The server.
        address: SocketAddr,
        /// How long it was waited for.
        after_ms: u128,
    },
    /// The connection ended between question and answer. It may have been done.
    #[error("{address} ended the connection: {why}")]
    Broken {
        /// The server.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// The server says no.
    #[error("{address} answers: {text}")]
    Server {
        /// The server.
        address: SocketAddr,
        /// Its words.
        text: String,
    },
}

/// Commands that are sent together and answered in order.
#[derive(Clone, Default)]
pub(crate) struct Batch(Pipeline);

impl Batch {
    pub fn new() -> Self {
        Batch(Pipeline::new())
    }

    /// Add one command.
    pub fn tell<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        self.0.add_command(command);
        self
    }
}

/// A kept connection.
pub(crate) struct Door {
    address: SocketAddr,
    password: Option<Secret>,
    open: Mutex<Option<MultiplexedConnection>>,
}

impl Door {
    pub fn new(address: SocketAddr, password: Option<Secret>) -> Self {
        Door { address, password, open: Mutex::new(None) }
    }

    /// Put a batch and wait for all answers, at most `within`. An error among the answers, also
    /// inside of an `EXEC`, is an [`AskError::Server`].
    ///
    /// A kept connection that turns out to have ended is opened anew and the batch put once more:
    /// every batch of this crate is safe to repeat.
    pub async fn ask(&self, batch: Batch, within: Duration) -> Result<Vec<Value>, AskError> {
        let replies = self.ask_plainly(batch, within).await?;
        match first_error(&replies) {
            Some(text) => Err(AskError::Server { address: self.address, text }),
            None => Ok(replies),
        }
    }

    /// As [`Door::ask`], with errors left among the answers.
    pub async fn ask_plainly(
        &self,
        batch: Batch,
        within: Duration,
    ) -> Result<Vec<Value>, AskError> {
        let silent = || AskError::Silent { address: self.address, after_ms: within.as_millis() };
        let until = Instant::now() + within;
        let mut open = timeout_at(until, self.open.lock()).await.map_err(|_| silent())?;
        // Taken out, so that dropping this future half-way also drops the connection.
        if let Some(connection) = open.take() {
            match timeout_at(until, put(connection, &batch.0)).await {
                Err(_) => return Err(silent()),
                Ok(Ok((connection, replies))) => {
                    *open = Some(connection);
                    return Ok(replies);
                }
                // It had ended since the last use: fall through to a new one.
                Ok(Err(_)) => {}
            }
        }
        let connection = timeout_at(until, connect(self.address, self.password.as_ref()))
            .await
            .map_err(|_| silent())??;
        let (connection, replies) = timeout_at(until, put(connection, &batch.0))
            .await
            .map_err(|_| silent())?
            .map_err(|error| AskError::Broken { address: self.address, why: error.to_string() })?;
        *open = Some(connection);
        Ok(replies)
    }

    /// Open the connection if it is free and closed, so that the next question finds it warm.
    pub async fn warm(&self, within: Duration) {
        if let Ok(open) = self.open.try_lock() {
            drop(open);
            let _ = self.ask_plainly(Batch::new().tell(["PING"]), within).await;
        }
    }
}

async fn put(
    mut connection: MultiplexedConnection,
    pipeline: &Pipeline,
) -> redis::RedisResult<(MultiplexedConnection, Vec<Value>)> {
    let replies = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
    Ok((connection, replies))
}

async fn connect(
    address: SocketAddr,
    password: Option<&Secret>,
) -> Result<MultiplexedConnection, AskError> {
    let refused = |error: redis::RedisError| {
        // What the server answers to AUTH is its own word; everything else is the network's.
        match error.code() {
            Some(_) => AskError::Server { address, text: error.to_string() },
            None => AskError::Unreachable { address, why: error.to_string() },
        }
    };
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    let info = ConnectionAddr::Tcp(address.ip().to_string(), address.port())
        .into_connection_info()
        .map_err(refused)?
        // Off by default in this crate version; Nagle costs up to 40 ms per question.
        .set_tcp_settings(TcpSettings::default().set_nodelay(true))
        .set_redis_settings(login);
    // Deadlines are the caller's: the crate's own 500 ms would end a question on its own account.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = Client::open(info).map_err(refused)?;
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(refused)
}
