//! Holding a server: no byte comes out of it or goes in, and everything goes on where it was when
//! it is released. For a primary whose agent may not say any more that it is the writer (L2).
//!
//! All processes of the server are stopped together, so none waits for another that is not. What
//! clients sent meanwhile lies in their sockets: a server that is superseded is therefore ended
//! where it is held, never released.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::node::Server;
use crate::process::Postmaster;

fn tell(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(process.as_fd(), signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Server {
    /// Stop every process of the server; nothing if there is none.
    pub(crate) fn hold(&self) -> io::Result<()> {
        let Some(postmaster) = Postmaster::find(&self.node.paths.data)? else { return Ok(()) };
        // First, so that no new children come.
        postmaster.signal(Signal::STOP)?;
        each(&postmaster, Signal::STOP)
    }

    /// Let every process of the server go on.
    pub(crate) fn release(&self) -> io::Result<()> {
        let Some(postmaster) = Postmaster::find(&self.node.paths.data)? else { return Ok(()) };
        each(&postmaster, Signal::CONT)?;
        postmaster.signal(Signal::CONT)
    }

    /// End every process of the server without letting one of them go on.
    pub(crate) fn end_held(&self) -> io::Result<()> {
        let Some(postmaster) = Postmaster::find(&self.node.paths.data)? else { return Ok(()) };
        // Read before the postmaster is gone: its children would be nobody's then.
        let children = postmaster.children();
        postmaster.signal(Signal::KILL)?;
        children.iter().try_for_each(|child| tell(child, Signal::KILL))
    }
}

fn each(postmaster: &Postmaster, signal: Signal) -> io::Result<()> {
    postmaster.children().iter().try_for_each(|child| tell(child, signal))
}
