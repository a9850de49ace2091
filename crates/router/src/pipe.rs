//! Large answers past this process: from one socket into a pipe and out of it into the other, by
//! `splice`, without a copy into a buffer and one out of it.
//!
//! A pipe is two files and up to 64 KiB, so a connection has one only while bytes are in it, lent by its
//! thread, which has a few; who finds none, or a kernel that cannot, copies. Left out: small messages,
//! for which it is two more calls and no copy worth it (`carry.rs` says when it is used).

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::lease::Passage;

/// What fits into a pipe, as the kernel makes it.
const LOAD: usize = 64 * 1024;
/// How many a thread has at most: who waits for a slow reader holds one.
const MOST: usize = 8;
/// The files of a thread's pipes.
pub const FILES: usize = 2 * MOST;

struct Pipe {
    into: OwnedFd,
    out: OwnedFd,
}

/// The pipes of a thread.
struct Pool {
    free: Vec<Pipe>,
    /// How many more it may have.
    more: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), more: MOST }) };
}

/// A pipe of the pool; it goes back there if nothing is left in it.
struct Lent {
    pipe: Option<Pipe>,
    holds: usize,
}

impl Lent {
    /// One that is empty, if there is any.
    fn take() -> Option<Lent> {
        POOL.with_borrow_mut(|pool| {
            let pipe = match pool.free.pop() {
                Some(pipe) => pipe,
                None if pool.more == 0 => return None,
                None => {
                    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
                    let (out, into) = pipe_with(flags).ok()?;
                    pool.more -= 1;
                    Pipe { into, out }
                }
            };
            Some(Lent { pipe: Some(pipe), holds: 0 })
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let pipe = self.pipe.take();
        // At the end of a thread there may be no pool any more.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            match pipe {
                Some(pipe) if self.holds == 0 => pool.free.push(pipe),
                // What one client did not take must not come to another.
                Some(_) | None => pool.more += 1,
            }
        });
    }
}

/// Carry on one load, from what is there. How much that was; `None` where it has to be copied. The
/// lease is looked at after it was read.
pub async fn pour(
    from: &TcpStream,
    to: &TcpStream,
    passage: &Passage<'_>,
) -> std::io::Result<Option<usize>> {
    let Some(mut lent) = Lent::take() else { return Ok(None) };
    let Some(pipe) = &lent.pipe else { return Ok(None) };
    let (into, out) = (&pipe.into, &pipe.out);
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let read = from.try_io(Interest::READABLE, || Ok(splice(from, None, into, None, LOAD, flags)?));
    let load = match read {
        Ok(load) => load,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(0)),
        Err(error) if cannot(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    lent.holds = load;
    if !passage.lets_pass() {
        passage.passed().await?;
    }
    while lent.holds > 0 {
        let most = lent.holds;
        match to.try_io(Interest::WRITABLE, || Ok(splice(out, None, to, None, most, flags)?)) {
            Ok(written) => lent.holds -= written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(load))
}

/// Whether this kernel does not splice these sockets.
fn cannot(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS))
}
