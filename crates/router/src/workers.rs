//! The threads that carry bytes, one for each core, each with a runtime of its own: a connection stays
//! on its thread, so that no packet wakes two of them.
//!
//! Left out: accepting, and what the agent says, which stay on the process's own runtime.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads. They end, and what they carry, when this is dropped.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
    _running: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// How many there are.
    ///
    /// # Errors
    /// The machine does not say how many cores it has.
    pub fn count() -> io::Result<usize> {
        Ok(std::thread::available_parallelism()?.get())
    }

    /// One for each core.
    ///
    /// # Errors
    /// A thread or its files cannot be had.
    pub fn start() -> io::Result<Workers> {
        let count = Workers::count()?;
        let (mut handles, mut running) = (Vec::new(), Vec::new());
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let (sender, ended) = oneshot::channel::<()>();
            running.push(sender);
            std::thread::Builder::new()
                .name(format!("carry-{number}"))
                // Nothing is ever sent: it ends with its sender.
                .spawn(move || runtime.block_on(ended))?;
        }
        Ok(Workers { handles, next: AtomicUsize::new(0), _running: running })
    }

    /// Run this on the thread whose turn it is.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(handle) = self.handles.get(turn % self.handles.len().max(1)) {
            handle.spawn(task);
        }
    }
}
