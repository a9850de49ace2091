//! One client's connection: it waits its turn, gets one to the server, and then bytes go both ways
//! until one side ends it or the route points elsewhere.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tier0_core::words::Region;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::lease::Lease;
use crate::socket::{cut, has_ended, tune};
use crate::state::Shared;

/// How long a client may wait for a server, held or not.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to take a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long it is until a server that took none is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked at whether a client that waits is still there.
const LOOK: Duration = Duration::from_millis(500);
/// How long a connection lives of which one side has said everything.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// What is read at once. There is no such buffer while nothing is there to read.
const CHUNK: usize = 32 * 1024;

/// Counts for as long as it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serve a client from its accepted connection to its end.
pub async fn serve(shared: Arc<Shared>, client: TcpStream, _slot: OwnedSemaphorePermit) {
    if tune(&client).is_err() {
        return;
    }
    let Some(Reached { server, region, moves }) = reach(&shared, &client).await else {
        cut(&client);
        return;
    };
    let _open = Counted::new(&shared.open);
    let mut watch = shared.watch();
    let ended = tokio::select! {
        ended = both_ways(&client, &server, &shared.lease, &region) => ended.is_ok(),
        _ = watch.wait_for(|standing| standing.moves != moves) => false,
    };
    if !ended {
        cut(&client);
        cut(&server);
    }
}

/// A connection to where the route points.
struct Reached {
    server: TcpStream,
    region: Region,
    /// How often the route had been pointed elsewhere then.
    moves: u64,
}

/// Connect to where the route points, once that may be.
async fn reach(shared: &Shared, client: &TcpStream) -> Option<Reached> {
    let _waiting = Counted::new(&shared.waiting);
    let deadline = Instant::now() + PATIENCE;
    let trying = async {
        let _turn = shared.turns.acquire().await.ok()?;
        let mut watch = shared.watch();
        loop {
            let (open, moves) = {
                let standing = watch.borrow_and_update();
                (standing.open(), standing.moves)
            };
            if let Some((region, address)) = open
                && shared.lease.lets_pass(&region)
                && let Ok(Ok(server)) = timeout(CONNECT, TcpStream::connect(address)).await
                && tune(&server).is_ok()
            {
                let now = watch.borrow().clone();
                if now.moves == moves && now.open().is_some() {
                    return Some(Reached { server, region, moves });
                }
                // It was told otherwise meanwhile.
                cut(&server);
                continue;
            }
            // A hold also ends by itself, which nobody says.
            let _ = timeout(AGAIN, watch.changed()).await;
        }
    };
    tokio::select! {
        reached = timeout_at(deadline, trying) => reached.ok().flatten(),
        // Nobody waits any more: the place in the queue is somebody else's.
        () = gone(client) => None,
    }
}

/// Comes back when a client that waits has ended its connection. One that has said all it has to say,
/// and listens still, looks the same: it is served if that takes no longer than until the first look.
async fn gone(client: &TcpStream) {
    loop {
        tokio::time::sleep(LOOK).await;
        if has_ended(client) {
            return;
        }
    }
}

async fn both_ways(
    client: &TcpStream,
    server: &TcpStream,
    lease: &Lease,
    region: &Region,
) -> std::io::Result<()> {
    let up = carry(client, server, lease, region);
    let down = carry(server, client, lease, region);
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => { ended?; timeout(LAST_WORDS, down).await? }
        ended = &mut down => { ended?; timeout(LAST_WORDS, up).await? }
    }
}

/// Carry what one side says to the other, to its end. The lease is looked at after it was read.
async fn carry(
    from: &TcpStream,
    to: &TcpStream,
    lease: &Lease,
    region: &Region,
) -> std::io::Result<()> {
    loop {
        from.readable().await?;
        let mut said = Vec::with_capacity(CHUNK);
        match from.try_read_buf(&mut said) {
            Ok(0) => return SockRef::from(to).shutdown(Shutdown::Write),
            Ok(_) => {
                lease.passed(region).await?;
                say(to, &said).await?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // One that never stops talking leaves a turn to the others.
        tokio::task::coop::consume_budget().await;
    }
}

async fn say(to: &TcpStream, mut what: &[u8]) -> std::io::Result<()> {
    while !what.is_empty() {
        match to.try_write(what) {
            Ok(written) => what = &what[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
