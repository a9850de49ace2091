//! Holding a server: no byte comes out of it or goes in, and everything goes on where it was when
//! it is released. For a primary whose agent may not say any more that it is the writer (L2).
//!
//! All processes of the server are stopped together, so none waits for another that is not. What
//! clients sent meanwhile lies in their sockets: a server that is superseded is therefore ended
//! where it is held, never released.

use std::io;

use rustix::process::Signal;

use crate::node::Server;
use crate::process::{Postmaster, tell};

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
        postmaster.kill()
    }
}

fn each(postmaster: &Postmaster, signal: Signal) -> io::Result<()> {
    postmaster.children().iter().try_for_each(|child| tell(child, signal))
}
