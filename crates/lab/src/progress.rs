//! What a lab says while it works: one plain line per thing done, with the time since the start,
//! on standard error, so that it reads the same with and without a terminal. And what a demo says,
//! on standard output.
//!
//! A terminal or a pipe that is gone is no reason to stop half-way, with a stack up: what can not be
//! said is left out, where `println!` would panic.

use std::fmt::Arguments;
use std::io::Write;
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
        let _ = writeln!(std::io::stderr(), "{:>7.2} s  {}", self.seconds(), text.as_ref());
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// Say something on standard output; see [`tell!`].
pub fn say_out(text: Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// `println!` for whoever has a stack to take down afterwards.
macro_rules! tell {
    ($($text:tt)*) => { $crate::progress::say_out(format_args!($($text)*)) };
}
pub(crate) use tell;
