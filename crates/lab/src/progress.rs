//! What a lab says while it works: one plain line per thing done, with the time since the start,
//! on standard error, so that it reads the same with and without a terminal.

use std::time::Instant;

/// The lines of one command.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Start the clock.
    pub fn begin() -> Progress {
        Progress { started: Instant::now() }
    }

    /// Say one thing.
    pub fn say(&self, text: impl AsRef<str>) {
        eprintln!("{:>7.2} s  {}", self.seconds(), text.as_ref());
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
