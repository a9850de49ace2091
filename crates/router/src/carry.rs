//! Bytes from one side of a connection to the other, in both directions, to the end of both.
//!
//! One buffer for each thread: a connection on which nothing happens has none, and one whose other side
//! is slower keeps what that has not taken. Where one side says more at once than fits into the buffer,
//! the rest goes by a pipe (`pipe.rs`), and what is smaller is copied: a request of sixty bytes takes a
//! read and a write so, and with a pipe two splices, with no copy saved that could be measured.
//!
//! Left out: who is connected to whom, and when that is cut (`connection.rs`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::lease::Passage;
use crate::pipe::pour;

/// How long a connection lives of which one side has said everything.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// What is read at once.
const CHUNK: usize = 32 * 1024;

/// Until both have said everything.
///
/// # Errors
/// One of them is gone, or nothing may pass between them for too long.
pub async fn both_ways(
    client: &TcpStream,
    server: &TcpStream,
    passage: &Passage<'_>,
) -> std::io::Result<()> {
    let up = carry(client, server, passage);
    let down = carry(server, client, passage);
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => { ended?; timeout(LAST_WORDS, down).await? }
        ended = &mut down => { ended?; timeout(LAST_WORDS, up).await? }
    }
}

/// Carry what one side says to the other, to its end.
async fn carry(from: &TcpStream, to: &TcpStream, passage: &Passage<'_>) -> std::io::Result<()> {
    // Whether it says more at once than fits into the buffer.
    let mut much = false;
    loop {
        // Leaves a turn to the others, too, where one never stops talking.
        poll_fn(|context| from.poll_read_ready(context)).await?;
        if much && let Some(poured) = pour(from, to, passage).await? {
            much = poured >= CHUNK;
            continue;
        }
        match pass(from, to, passage)? {
            Passed::All { read } => much = read == CHUNK,
            Passed::End => return SockRef::from(to).shutdown(Shutdown::Write),
            Passed::Rest(rest) => {
                passage.passed().await?;
                say(to, &rest).await?;
            }
        }
    }
}

/// What became of what one side said.
enum Passed {
    /// The other side has all that was read, which may be nothing.
    All {
        /// How much that was.
        read: usize,
    },
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
fn pass(from: &TcpStream, to: &TcpStream, passage: &Passage<'_>) -> std::io::Result<Passed> {
    BUFFER.with_borrow_mut(|said| {
        said.clear();
        match read(from, said)? {
            None => return Ok(Passed::All { read: 0 }),
            Some(0) => return Ok(Passed::End),
            Some(_) => {}
        }
        if !passage.lets_pass() {
            return Ok(Passed::Rest(said.clone()));
        }
        let written = match to.try_write(said) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        Ok(match &said[written..] {
            [] => Passed::All { read: said.len() },
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

/// Say all of this.
///
/// # Errors
/// The other side is gone.
pub async fn say(to: &TcpStream, mut what: &[u8]) -> std::io::Result<()> {
    while !what.is_empty() {
        match to.try_write(what) {
            Ok(written) => what = &what[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
