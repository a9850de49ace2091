//! Whether a data server takes a fresh connection, asked from outside: the second pair of eyes of
//! a decision, for agents that look at the other region and for orchestrators.
//!
//! No credentials and no client library: a PostgreSQL server answers an `SSLRequest` with one byte
//! before it knows who asks (`postmaster.c`, `ProcessStartupPacket`; a client that then goes away
//! leaves no line in its log), and Redis answers any `PING`, if only with `-NOAUTH`. That the
//! server works beyond this is for its own agent to say.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tier0_core::observe::{Knock, Reach};
use tier0_core::record::DatastoreKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `SSLRequest`: its length and its code (`pqcomm.h`, `NEGOTIATE_SSL_CODE`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The shortest command that Redis answers.
const PING: &[u8] = b"PING\r\n";

/// How often a server is knocked at. Every knock costs PostgreSQL a process of its own.
pub const EVERY: Duration = Duration::from_millis(200);

/// How long a knock waits for its answer: shorter than a detection window, so that a server that
/// falls silent has been found so by several knocks before the window is over.
const MOST: Duration = Duration::from_millis(500);

/// Knock once. Never takes longer than `most`.
pub async fn knock(kind: DatastoreKind, address: SocketAddr, most: Duration) -> Knock {
    match tokio::time::timeout(most, ask(kind, address)).await {
        Ok(Ok(())) => Knock::Answered,
        Ok(Err(error)) => match error.kind() {
            // No way there, or the way is closed: nothing was heard of the host itself.
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut => {
                Knock::Silent
            }
            _ => Knock::Refused,
        },
        Err(_) => Knock::Silent,
    }
}

async fn ask(kind: DatastoreKind, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let question: &[u8] = match kind {
        DatastoreKind::Postgres => &SSL_REQUEST,
        DatastoreKind::Redis => PING,
    };
    stream.write_all(question).await?;
    // One byte of whatever it says is an answer; an end of the stream is none.
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

/// What the knocks at one server came to so far, as of the clock of this process.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    newest: Knock,
    answered: Instant,
}

impl Kept {
    /// After the first knock: what was never answered counts from it.
    pub fn first(knock: Knock, now: Instant) -> Self {
        Kept { newest: knock, answered: now }
    }

    /// After another one. Whether something other than the time is different.
    pub fn add(&mut self, knock: Knock, now: Instant) -> bool {
        if knock == Knock::Answered {
            self.answered = now;
        }
        std::mem::replace(&mut self.newest, knock) != knock
    }

    /// As it is told to others.
    pub fn reach(&self, now: Instant) -> Reach {
        let unanswered = now.saturating_duration_since(self.answered).as_millis();
        Reach {
            newest: self.newest,
            unanswered_ms: match self.newest {
                Knock::Answered => 0,
                Knock::Refused | Knock::Silent => u64::try_from(unanswered).unwrap_or(u64::MAX),
            },
        }
    }
}

/// Knock at a server for ever. Knocks overlap, so that one that is late delays no other.
pub async fn keep_knocking(
    kind: DatastoreKind,
    address: SocketAddr,
    heard: impl Fn(Knock) + Clone + Send + 'static,
) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Ended with this future.
    let mut knocks = tokio::task::JoinSet::new();
    loop {
        ticks.tick().await;
        while knocks.try_join_next().is_some() {}
        let heard = heard.clone();
        knocks.spawn(async move {
            let came_to = knock(kind, address, MOST).await;
            heard(came_to);
        });
    }
}
