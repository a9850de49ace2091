//! One point in time that all waits of an order share.

use std::time::{Duration, Instant};

/// The moment at which an order's limit is used up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// A deadline this far from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Deadline(Instant::now() + limit)
    }

    /// What is left; zero once it has passed.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is left.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// The earlier of this deadline and `limit` from now.
    pub(crate) fn at_most(self, limit: Duration) -> Self {
        Deadline(self.0.min(Instant::now() + limit))
    }
}
