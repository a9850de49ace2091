//! Holding a server: no byte comes out of it or goes in until it is released (L2). What clients
//! sent meanwhile lies in their sockets and would be obeyed first: a server that is superseded is
//! ended where it is held.

use std::io;

use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use crate::node::RedisNode;
use crate::process;

impl RedisNode {
    /// Stop the server; nothing if there is none.
    ///
    /// # Errors
    /// The process may not be signalled.
    pub fn hold(&self) -> io::Result<()> {
        self.tell(Signal::STOP)
    }

    /// Let the server go on.
    ///
    /// # Errors
    /// The process may not be signalled.
    pub fn release(&self) -> io::Result<()> {
        self.tell(Signal::CONT)
    }

    /// End the server without letting it go on.
    ///
    /// # Errors
    /// The process may not be signalled.
    pub fn end_held(&self) -> io::Result<()> {
        self.tell(Signal::KILL)
    }

    fn tell(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = process::find(&self.place, &self.settings.redis.server_binary) else {
            return Ok(());
        };
        match kill_process(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
