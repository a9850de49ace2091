//! One client's connection: it waits its turn, gets one to the server, and then bytes go both ways
//! until one side ends it or the route points elsewhere.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use rustix::buffer::spare_capacity;
use socket2::SockRef;
use tier0_core::words::Region;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
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
/// What is read at once.
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

/// A place in the line before the server, had from the moment when a connection was accepted: who
/// came first is first, whichever thread serves it.
pub struct Place(MaybeDone<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>);

impl Place {
    /// The last one.
    pub fn take(shared: &Shared) -> Place {
        let mut turn = maybe_done(Arc::clone(&shared.turns).acquire_owned().boxed());
        // Asking once is what puts it in line.
        let _ = (&mut turn).now_or_never();
        Place(turn)
    }

    /// Wait until it is the first.
    async fn turn(mut self) -> Option<OwnedSemaphorePermit> {
        (&mut self.0).await;
        Pin::new(&mut self.0).take_output()?.ok()
    }
}

/// Serve a client from its accepted connection to its end.
pub async fn serve(
    shared: Arc<Shared>,
    client: std::net::TcpStream,
    place: Place,
    _slot: OwnedSemaphorePermit,
) {
    let Ok(client) = TcpStream::from_std(client) else { return };
    if tune(&client).is_err() {
        return;
    }
    let Some(Reached { server, region, moves }) = reach(&shared, &client, place).await else {
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
async fn reach(shared: &Shared, client: &TcpStream, place: Place) -> Option<Reached> {
    let _waiting = Counted::new(&shared.waiting);
    let deadline = Instant::now() + PATIENCE;
    let trying = async {
        let _turn = place.turn().await?;
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

/// Carry what one side says to the other, to its end.
async fn carry(
    from: &TcpStream,
    to: &TcpStream,
    lease: &Lease,
    region: &Region,
) -> std::io::Result<()> {
    loop {
        // Leaves a turn to the others, too, where one never stops talking.
        poll_fn(|context| from.poll_read_ready(context)).await?;
        match pass(from, to, lease, region)? {
            Passed::All => {}
            Passed::End => return SockRef::from(to).shutdown(Shutdown::Write),
            Passed::Rest(rest) => {
                lease.passed(region).await?;
                say(to, &rest).await?;
            }
        }
    }
}

/// What became of what one side said.
enum Passed {
    /// There was nothing, or the other side has it.
    All,
    /// It has said everything.
    End,
    /// The other side does not take this now, or may not have it.
    Rest(Vec<u8>),
}

thread_local! {
    /// What is read on this thread. Nobody waits with it: a connection has no buffer of its own but
    /// where the other side is slower.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(CHUNK));
}

/// Read what is there, and pass it on in the same breath. The lease is looked at after it was read.
fn pass(
    from: &TcpStream,
    to: &TcpStream,
    lease: &Lease,
    region: &Region,
) -> std::io::Result<Passed> {
    BUFFER.with_borrow_mut(|said| {
        said.clear();
        match read(from, said)? {
            None => return Ok(Passed::All),
            Some(0) => return Ok(Passed::End),
            Some(_) => {}
        }
        if !lease.lets_pass(region) {
            return Ok(Passed::Rest(said.clone()));
        }
        let written = match to.try_write(said) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        Ok(match &said[written..] {
            [] => Passed::All,
            rest => Passed::Rest(rest.to_vec()),
        })
    })
}

/// How much was read; `None` where nothing was there.
///
/// What does not fill the buffer was all of it. That is told to tokio as if the socket had been asked
/// once more and had nothing, which spares that call; `try_read` makes it.
fn read(from: &TcpStream, said: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    let mut count = None;
    let tried = from.try_io(Interest::READABLE, || {
        let read = rustix::io::read(from, spare_capacity(said))?;
        count = Some(read);
        match read {
            0 | CHUNK.. => Ok(()),
            _ => Err(std::io::Error::from(ErrorKind::WouldBlock)),
        }
    });
    match tried {
        Err(error) if count.is_none() && error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(count),
    }
}

async fn say(to: &TcpStream, mut what: &[u8]) -> std::io::Result<()> {
    while !what.is_empty() {
        match to.try_write(what) {
            Ok(written) => what = &what[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
