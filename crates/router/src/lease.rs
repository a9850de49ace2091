//! Until when answers may be passed on, where reads are strict: the agent of this region says so,
//! again and again, and no byte passes in either direction when it has not for too long (L1, L2). It
//! is about servers of the router's own region only: those of another are that region's agent's. Who
//! only reads needs none where another region is the writer: what lags anyway is fenced by nobody.

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
    /// How often the own region has become the writer or ceased to be it, as far as the route was told:
    /// while it is odd, the region is the writer.
    turns: AtomicU64,
}

/// Between a client and one server: whether bytes may pass.
#[derive(Debug)]
pub struct Passage<'a> {
    lease: &'a Lease,
    server: Region,
    /// Who only reads needs no lease while the own region is not the writer, for as long as this turn
    /// lasts.
    free_in: Option<u64>,
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
        Lease {
            own: route.region.clone(),
            reads: route.reads,
            until_us: AtomicU64::new(0),
            // Nobody has said that it is not.
            turns: AtomicU64::new(1),
        }
    }

    /// The route points at this region's server from now on.
    pub fn points_at(&self, writer: &Region) {
        let is_writer = self.turns.load(Ordering::Acquire) % 2 == 1;
        // Who calls this holds the lock of the state.
        if is_writer != (*writer == self.own) {
            self.turns.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// To the writer, in this region.
    pub fn to_writer(&self, server: Region) -> Passage<'_> {
        Passage { lease: self, server, free_in: None }
    }

    /// To a server of this region, by a client that only reads.
    pub fn to_reader(&self, server: Region) -> Passage<'_> {
        let turn = self.turns.load(Ordering::Acquire);
        Passage { lease: self, server, free_in: turn.is_multiple_of(2).then_some(turn) }
    }

    /// It was given, from this moment for so long. A word that comes late ends nothing.
    pub fn granted(&self, stamp_us: u64, lasting: Duration) {
        let lasting = u64::try_from(lasting.as_micros()).unwrap_or(u64::MAX);
        // A stamp of the future was not this clock's.
        let until = stamp_us.min(now_us()).saturating_add(lasting);
        self.until_us.fetch_max(until, Ordering::Relaxed);
    }
}

impl Passage<'_> {
    /// The server's region.
    pub fn server(&self) -> &Region {
        &self.server
    }

    /// Whether bytes may pass now.
    pub fn lets_pass(&self) -> bool {
        let lease = self.lease;
        lease.reads == RouteReads::Bounded
            || self.server != lease.own
            || self.free_in.is_some_and(|turn| turn == lease.turns.load(Ordering::Acquire))
            || now_us() < lease.until_us.load(Ordering::Relaxed)
    }

    /// Wait until they may.
    ///
    /// # Errors
    /// They may not for so long that the session is of no use.
    pub async fn passed(&self) -> std::io::Result<()> {
        let began = Instant::now();
        while !self.lets_pass() {
            if began.elapsed() > PATIENCE {
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}
