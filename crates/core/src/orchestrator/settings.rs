//! What a stack's decisions are made with: its shape and its limits.

use std::time::Duration;

use crate::observe::Shape;
use crate::words::{Site, StackName};

/// Fixed for the life of an orchestrator.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The stack.
    pub stack: StackName,
    /// Regions and datastores.
    pub shape: Shape,
    /// The orchestrators.
    pub seats: Seats,
    /// Limits.
    pub limits: Limits,
}

/// The sites that have an orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    /// Where this one runs.
    pub here: Site,
    /// All of them, this one too; who comes first acts before the others.
    pub order: Vec<Site>,
}

impl Seats {
    /// A single orchestrator.
    pub fn only(here: Site) -> Seats {
        Seats { order: vec![here.clone()], here }
    }

    /// Whether others write to the store too.
    pub fn is_shared(&self) -> bool {
        self.order.len() > 1
    }

    /// Whether this one comes before another site in the order.
    pub fn is_before(&self, other: &Site) -> bool {
        let place = |site: &Site| self.order.iter().position(|one| one == site);
        place(&self.here) < place(other)
    }

    /// How many of the sites are more than half of them.
    pub fn majority(&self) -> usize {
        self.order.len() / 2 + 1
    }
}

/// Limits that decisions look at. The configuration's reference explains each.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// How long the old side may take to answer before an operation goes on without it.
    pub cooperation: Duration,
    /// How long a server may take to stop in order.
    pub stop: Duration,
    /// How long a server that does not answer is given before it is stopped for good.
    pub stop_silent: Duration,
    /// How long clients may be kept waiting by a join.
    pub join: Duration,
    /// How long a route may hold its clients; then it lets them go on by itself.
    pub hold: Duration,
    /// How long a route waits for open transactions before a commanded move goes on without them.
    pub drain: Duration,
    /// How long Redis writes may be held.
    pub pause: Duration,
    /// How long the target may take to receive what was written.
    pub receive: Duration,
    /// How long a promotion may take.
    pub promote: Duration,
    /// How long the checkpoint before a switch may take.
    pub checkpoint: Duration,
    /// How long rejoining may take.
    pub follow: Duration,
    /// How long any other command may take.
    pub command: Duration,
    /// Silence after which an agent counts as not answering.
    pub silence: Duration,
    /// How long commits may wait for a lost standby before it leaves the takeover set (P9).
    pub stall: Duration,
    /// How often the floors of members are raised (P3).
    pub floors: Duration,
    /// How long a lease lasts from the stamp that it answers.
    pub lease: Duration,
    /// How long after an automatic move no other is made for the same cause.
    pub cool_down: Duration,
    /// Free space below which a target is refused, in bytes.
    pub disk_free_least: u64,
    /// WAL received and not replayed above which a commanded switch is refused, in bytes.
    pub replay_backlog_most: u64,
    /// How old the newest backup may become.
    pub backup_age_most: Duration,
}

impl Limits {
    /// How long the next join may keep clients waiting, after so many that were not proven in time:
    /// twice as long each time, up to what commits may wait for a lost standby anyway. A standby that
    /// takes its name slowly would stay out for ever otherwise.
    pub fn next_join(&self, failures: u32) -> Duration {
        let most = self.stall.max(self.join);
        self.join.saturating_mul(1 << failures.min(10)).min(most)
    }
}
