//! What the built-in router is told over its Unix socket: one line of JSON, and one line back.
//! The router answers from what it does, and refuses an older epoch by itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tier0_config::RouteSettings;
use tier0_core::words::{Epoch, Region};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Only say how it is.
    Look,
    /// New connections wait, for at most this long.
    Hold {
        /// In milliseconds.
        hold_ms: u64,
    },
    /// Point at the writer of this epoch: what is open to another address is cut.
    Point {
        /// The epoch.
        epoch: Epoch,
        /// Its writer.
        to: Region,
        /// Where that is.
        address: SocketAddr,
    },
    /// The next connection from there does not wait while others do: it is the agent's own, of which a
    /// statement must come back.
    Admit {
        /// Its address, which it has already.
        from: SocketAddr,
    },
    /// New connections go on.
    Release,
    /// Answers of the servers of the router's own region may be passed on.
    Lease {
        /// From this moment of the router's own clock, as it said it.
        stamp_us: u64,
        /// For so long.
        lasting_ms: u64,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// It is so now.
    State(RouterState),
    /// It points by a newer epoch.
    Refused {
        /// Both epochs.
        sentence: String,
    },
    /// It could not be made durable.
    Failed {
        /// Why.
        why: String,
    },
}

/// How a router is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterState {
    /// For how long new connections have waited; `None` while they do not.
    pub held_ms: Option<u64>,
    /// Where it points; `None` before it was told.
    pub address: Option<SocketAddr>,
    /// The region of that.
    pub to: Option<Region>,
    /// By which epoch.
    pub epoch: Option<Epoch>,
    /// Now, by the clock from which its leases count.
    pub stamp_us: u64,
    /// Connections that are open to a server.
    pub open: u32,
    /// Connections that wait.
    pub waiting: u32,
    /// Connections of the read port that are open to a server; nobody counts them at a switch.
    pub reading: u32,
}

/// The socket of a route, in its directory; that of a HAProxy, too.
pub fn socket(route: &RouteSettings) -> PathBuf {
    route.socket_directory.join(format!("{}.sock", route.id()))
}

/// How long an answer may be.
const LINE: u64 = 4_096;

/// Ask a router.
///
/// # Errors
/// It does not answer in time, or not in this form; `ConnectionRefused` and `NotFound` say that
/// nobody listens.
pub async fn ask(socket: &Path, ask: &Ask, limit: Duration) -> std::io::Result<Answer> {
    let asking = async {
        let mut stream = UnixStream::connect(socket).await?;
        let mut line = serde_json::to_string(ask)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).take(LINE).read_line(&mut answer).await?;
        Ok::<Answer, std::io::Error>(serde_json::from_str(&answer)?)
    };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(limit, asking).await.map_err(|_| late())?
}
