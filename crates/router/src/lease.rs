//! Until when answers may be passed on, where reads are strict: the agent of this region says so,
//! again and again, and no byte passes in either direction when it has not for too long (L1, L2). It
//! is about servers of the router's own region only: those of another are that region's agent's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tier0_config::{RouteReads, RouteSettings};
use tier0_core::words::Region;

/// How often a session that waits for the lease looks again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long a session may wait for it; then it is cut.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lease of a route.
#[derive(Debug)]
pub struct Lease {
    own: Region,
    reads: RouteReads,
    until_us: AtomicU64,
}

/// The time since the machine booted, which goes on while it is suspended.
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000;
    seconds * 1_000_000 + micros
}

impl Lease {
    /// None yet.
    pub fn of(route: &RouteSettings) -> Lease {
        Lease { own: route.region.clone(), reads: route.reads, until_us: AtomicU64::new(0) }
    }

    /// It was given, from this moment for so long. A word that comes late ends nothing.
    pub fn granted(&self, stamp_us: u64, lasting: Duration) {
        let lasting = u64::try_from(lasting.as_micros()).unwrap_or(u64::MAX);
        // A stamp of the future was not this clock's.
        let until = stamp_us.min(now_us()).saturating_add(lasting);
        self.until_us.fetch_max(until, Ordering::Relaxed);
    }

    /// Whether bytes from and to a server of this region may pass now.
    pub fn lets_pass(&self, server: &Region) -> bool {
        self.reads == RouteReads::Bounded
            || *server != self.own
            || now_us() < self.until_us.load(Ordering::Relaxed)
    }

    /// Wait until they may.
    ///
    /// # Errors
    /// They may not for so long that the session is of no use.
    pub async fn passed(&self, server: &Region) -> std::io::Result<()> {
        let began = Instant::now();
        while !self.lets_pass(server) {
            if began.elapsed() > PATIENCE {
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}
