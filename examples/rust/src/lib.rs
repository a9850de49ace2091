//! An application that survives a failover, as small as it can be: it places orders in PostgreSQL,
//! each once, while the writer moves to the other region or is lost with its region.
//!
//! Four things make it so, and docs/writing-an-application.md says why: it knows both hosts and asks
//! for the one that takes writes; everything has a limit; an order has a name that the *client* chose,
//! so that sending it again is safe; and what it says to its user rests on a commit that was waited
//! for. Left out: a pool, and anything but one table.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// How long connecting, and one order, may take. Longer than a move holds clients; shorter than a
/// user waits.
const LIMIT: Duration = Duration::from_secs(2);
/// Before it is tried again. A move takes less than a second: there is no need for longer and longer
/// pauses, but for some.
const PAUSE: Duration = Duration::from_millis(50);
/// When to give up and say so.
const PATIENCE: Duration = Duration::from_secs(30);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS example_order \
     (name text PRIMARY KEY, placed_at timestamptz NOT NULL DEFAULT clock_timestamp())";
/// Safe to send twice: the second one finds the first.
const ORDER: &str = "INSERT INTO example_order (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
/// Something to wait for where nothing was inserted.
const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'example', 'barrier')";

/// What it met.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    /// Orders that a user was told are placed.
    pub placed: u64,
    /// Attempts that were made again.
    pub again: u64,
    /// The longest that a user waited.
    pub longest: Duration,
}

/// A connection, and how often the server said that it stopped waiting for its standby.
struct Session {
    client: Client,
    unconfirmed: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // A server that fell silent would keep it for ever.
        self.driver.abort();
    }
}

async fn connect(dsn: &str) -> Result<Session, tokio_postgres::Error> {
    let mut config: Config = dsn.parse()?;
    config
        // Whichever of the hosts takes writes; a standby is passed over.
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .connect_timeout(Duration::from_millis(500))
        // A host that vanished answers nothing, not even a refusal.
        .tcp_user_timeout(Duration::from_secs(3))
        .keepalives_idle(Duration::from_secs(3))
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(2);
    let (client, mut connection) = config.connect(NoTls).await?;
    let unconfirmed = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&unconfirmed);
    let driver = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            // A COMMIT that is answered with this warning is on one node only.
            if let AsyncMessage::Notice(notice) = message
                && notice.message().contains("canceling wait for synchronous replication")
            {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    Ok(Session { client, unconfirmed, driver })
}

/// Place one order. An error says nothing about whether it is placed; sending it again does.
async fn place(session: &Session, name: &str) -> Result<(), String> {
    let warned = session.unconfirmed.load(Ordering::SeqCst);
    let order = async {
        let inserted = session.client.execute(ORDER, &[&name]).await?;
        if inserted == 0 {
            // It is there, from an attempt whose answer was lost. That it can be seen does not mean
            // that the other region has it: what is written after it, and waited for, does.
            session.client.execute(BARRIER, &[]).await?;
        }
        Ok::<(), tokio_postgres::Error>(())
    };
    match timeout(LIMIT, order).await {
        Err(_) => Err("no answer in time".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(())) if session.unconfirmed.load(Ordering::SeqCst) != warned => {
            Err("committed on one node only".to_owned())
        }
        Ok(Ok(())) => Ok(()),
    }
}

/// Place so many orders, one after the other, each until it is placed.
pub async fn place_orders(
    dsn: &str,
    prefix: &str,
    count: u64,
    every: Duration,
) -> Result<Report, String> {
    let mut session: Option<Session> = None;
    let mut report = Report::default();
    for number in 0..count {
        let name = format!("{prefix}-{number:06}");
        let began = Instant::now();
        loop {
            let problem = match &session {
                Some(open) => match place(open, &name).await {
                    Ok(()) => break,
                    Err(problem) => problem,
                },
                None => match timeout(LIMIT, connect(dsn)).await {
                    Ok(Ok(open)) => {
                        let _ = timeout(LIMIT, open.client.batch_execute(TABLE)).await;
                        session = Some(open);
                        continue;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no server accepted a session in time".to_owned(),
                },
            };
            // Never go on with a session that met an error: it may lead to what is no writer any more.
            session = None;
            report.again += 1;
            if began.elapsed() > PATIENCE {
                return Err(format!("{name}: {problem}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        report.placed += 1;
        report.longest = report.longest.max(began.elapsed());
        tokio::time::sleep(every).await;
    }
    Ok(report)
}
