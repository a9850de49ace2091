//! Which stamp of an agent a lease may be granted for (L1). How a holder counts it is in `lease.rs`,
//! who may be granted one in `orchestrator/leases.rs`.
//!
//! Where several orchestrators share a store, one that was cut off does not know that another acts
//! by now, which counts on its grants to end. So it answers only stamps that came before a read of
//! the store began in which it was still the one that acts: a stamp that came later may be younger
//! than its successor.

use std::collections::VecDeque;

use crate::guard::Guard;
use crate::words::Moment;

/// Who else may come to act by the record that the granter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granter {
    /// Nobody: the store lets no other process in.
    Only,
    /// Another orchestrator.
    OneOfSeveral,
}

/// A stamp: of which run of the agent, and its microseconds.
pub type RunStamp = (String, u64);

/// The stamps of one agent that a grant may echo.
#[derive(Debug, Clone)]
pub struct Stamps {
    granter: Granter,
    /// In the order in which they came.
    waiting: VecDeque<(RunStamp, Moment)>,
    answerable: Option<RunStamp>,
}

/// More stamps than come between two reads of a store that answers are not kept.
const KEPT: usize = 64;

impl Stamps {
    /// None yet.
    pub fn new(granter: Granter) -> Stamps {
        Stamps { granter, waiting: VecDeque::new(), answerable: None }
    }

    /// A report with this stamp came.
    pub fn came(&mut self, stamp: RunStamp, at: Moment) {
        if self.granter == Granter::Only || !Guard::GrantFollowsRead.holds() {
            self.answerable = Some(stamp);
            return;
        }
        if self.waiting.len() == KEPT {
            self.waiting.pop_front();
        }
        self.waiting.push_back((stamp, at));
    }

    /// A read that began at this moment found the granter acting.
    pub fn confirmed(&mut self, begun: Moment) {
        while let Some((stamp, _)) = self.waiting.front().filter(|(_, at)| *at <= begun) {
            self.answerable = Some(stamp.clone());
            self.waiting.pop_front();
        }
    }

    /// The newest that may be answered.
    pub fn answerable(&self) -> Option<&RunStamp> {
        self.answerable.as_ref()
    }
}
