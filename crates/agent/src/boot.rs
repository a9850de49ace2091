//! The clock by which leases are counted: the time since the machine booted, which goes on while it
//! is suspended.

use std::time::Duration;

use tier0_core::lease::Boot;

/// Now, by the kernel's clock.
pub fn now() -> Boot {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Boot(Duration::new(seconds, nanos))
}
