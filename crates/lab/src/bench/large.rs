//! The large database: filler in a table of its own, and a transaction that is open while the
//! writer moves.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::machine;
use super::run::OpenTransaction;
use crate::ledger::{PostgresTarget, Targets};
use crate::progress::Progress;
use crate::state::LabState;

/// Rows per transaction, about 50 MiB.
const BATCH: u64 = 25_000;
/// Both nodes hold the data, the log of its making, and the writer its archive as well.
const DISK_PER_BYTE: u64 = 5;
const SETTLE: Duration = Duration::from_secs(90);
const SETTLED_DIRTY_KIB: u64 = 128 * 1024;
/// How long the transaction lasts if nothing ends it.
const OPEN: Duration = Duration::from_secs(2);
/// How old it is when the command comes.
const HEAD_START: Duration = Duration::from_millis(300);

/// Refuse where the disk is too small for a database of this size.
pub fn check_disk(directory: &Path, bytes: u64) -> Result<()> {
    let existing = directory.ancestors().find(|path| path.exists()).context("a directory")?;
    let statistics = rustix::fs::statvfs(existing).context("see how much disk is free")?;
    let free = statistics.f_bavail * statistics.f_frsize;
    let needed = bytes * DISK_PER_BYTE;
    if free < needed {
        bail!(
            "a database of {} MiB needs {} MiB of disk on two nodes with log and archive; {} has {}",
            bytes >> 20,
            needed >> 20,
            existing.display(),
            free >> 20
        );
    }
    Ok(())
}

/// Insert filler until the database has `bytes`; its size in the end.
pub async fn fill(
    state: &LabState,
    targets: &Targets,
    bytes: u64,
    progress: Progress,
) -> Result<u64> {
    let target = targets.postgres.first().context("the lab has no PostgreSQL")?;
    let (client, _driver) = writer(target).await?;
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS bench_filler (id bigint, filler text)")
        .await
        .context("create the filler's table")?;
    let mut next = 0_u64;
    let mut said = 0;
    loop {
        let row = client.query_one("SELECT pg_database_size(current_database())", &[]).await?;
        let size = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
        if size >= bytes {
            settle(state, progress).await?;
            return Ok(size);
        }
        if size >> 30 > said {
            said = size >> 30;
            progress.say(format!("{said} GiB"));
        }
        let end = next + BATCH;
        client
            .batch_execute(&format!(
                "INSERT INTO bench_filler SELECT n, repeat(md5(n::text), 60) \
                 FROM generate_series({next}, {}) n",
                end - 1
            ))
            .await
            .context("insert filler")?;
        next = end;
    }
}

/// Wait until the filling's log is archived and its data is on the disk. Others' data counts too:
/// where the disk does not become quiet, the page's time in each run shows it.
async fn settle(state: &LabState, progress: Progress) -> Result<()> {
    let stack = state.stack()?;
    let deadline = Instant::now() + SETTLE;
    let waiting =
        || {
            let nodes = stack.datastores.iter().filter(|one| one.postgres.is_some());
            nodes.flat_map(|one| &one.nodes).any(|node| {
                let queue = node.data_directory.join("pg_wal/archive_status");
                std::fs::read_dir(queue).into_iter().flatten().flatten().any(|entry| {
                    entry.path().extension().is_some_and(|extension| extension == "ready")
                })
            })
        };
    while waiting() || machine::dirty_kib() > SETTLED_DIRTY_KIB {
        if Instant::now() >= deadline {
            progress
                .say(format!("the disk is still busy {} s after the filling", SETTLE.as_secs()));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// A transaction that has written, and is held open.
pub struct Held {
    task: JoinHandle<OpenTransaction>,
}

impl Held {
    /// Open it on the writer.
    pub async fn begin(targets: &Targets) -> Result<Held> {
        let target = targets.postgres.first().context("the lab has no PostgreSQL")?;
        let (client, driver) = writer(target).await?;
        client
            .batch_execute("CREATE TABLE IF NOT EXISTS bench_open (at timestamptz)")
            .await
            .context("create the open transaction's table")?;
        client
            .batch_execute("BEGIN; INSERT INTO bench_open VALUES (now())")
            .await
            .context("open a transaction")?;
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                ended = driver => Some(ended),
                () = tokio::time::sleep(OPEN) => None,
            };
            let (committed, end) = match ended {
                Some(_) => (false, "the server ended the session".to_owned()),
                None => match client.batch_execute("COMMIT").await {
                    Ok(()) => (true, "committed".to_owned()),
                    Err(error) => (false, error.to_string()),
                },
            };
            OpenTransaction { committed, open_ms: began.elapsed().as_secs_f64() * 1_000.0, end }
        });
        tokio::time::sleep(HEAD_START).await;
        Ok(Held { task })
    }

    /// What became of it.
    pub async fn end(self) -> OpenTransaction {
        self.task.await.unwrap_or_else(|error| OpenTransaction {
            committed: false,
            open_ms: 0.0,
            end: format!("not known: {error}"),
        })
    }
}

async fn writer(target: &PostgresTarget) -> Result<(Client, JoinHandle<()>)> {
    for host in &target.hosts {
        if let Ok(found) = connect(target, *host).await {
            return Ok(found);
        }
    }
    bail!("no PostgreSQL takes writes")
}

async fn connect(target: &PostgresTarget, host: SocketAddr) -> Result<(Client, JoinHandle<()>)> {
    let (client, connection) = tokio_postgres::Config::new()
        .host(host.ip().to_string())
        .port(host.port())
        .dbname(&target.database)
        .user(&target.user)
        .password(target.password.expose())
        .application_name("bench")
        .connect_timeout(Duration::from_secs(1))
        .connect(NoTls)
        .await?;
    let driver = tokio::spawn(async move {
        // The session's end is what is waited for; its reason is of no use.
        let _ = connection.await;
    });
    let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
    if row.get::<_, bool>(0) {
        bail!("{host} is a standby");
    }
    Ok((client, driver))
}
