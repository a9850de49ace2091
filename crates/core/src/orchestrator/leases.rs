//! Who may be given a lease, and when the one that the old side may still have is over (L1, L3).
//! How a holder counts it is in `lease.rs`.
//!
//! The holders are the agents: one that is granted nothing, and that no peer confirms, holds its
//! servers. This orchestrator is the only granter, since its store lets no other one in.

use crate::guard::Guard;
use crate::lease::with_drift;
use crate::record::{DatastoreKind, OperationKind};
use crate::words::{DatastoreName, Moment, NodeId, Region};

use super::Orchestrator;
use super::activity::Activity;
use super::change::Change;
use super::input::Now;
use super::reach::Sight;
use super::seen::Answering;

impl Orchestrator {
    /// The region whose agent may be granted a lease: the writer's, while nothing is being stored
    /// that moves it.
    pub fn grants(&self) -> Option<&Region> {
        let moving = self
            .storing
            .as_ref()
            .is_some_and(|storing| matches!(storing.wanted.change, Change::Swap { .. }));
        match &self.record {
            Some(record) if self.is_driving() && !moving => Some(&record.writer),
            Some(_) | None => None,
        }
    }

    /// Whether no takeover set has a member, nor is about to get one, so that nobody can be
    /// promoted (L4). Without a datastore that has a takeover set somebody always can.
    pub fn is_alone(&self) -> bool {
        let joining = self.activities.values().any(|activity| activity.kind == OperationKind::Join);
        if joining && Guard::JoinNeedsLease.holds() {
            return false;
        }
        let Some(record) = &self.record else { return false };
        let mut sets = record
            .datastores
            .values()
            .filter(|datastore| datastore.kind == DatastoreKind::Postgres)
            .map(|datastore| &datastore.takeover)
            .peekable();
        sets.peek().is_some() && sets.all(|takeover| takeover.is_empty())
    }

    /// Whether the old side of a datastore serves nobody any more: it is stopped or fenced, or its
    /// lease has run out. That its agent has heard of the new epoch is not enough: its server goes
    /// on until it is told to stop, or until the lease is over. That its server is down is not enough
    /// either, until the agent has heard: a start that it was told before may still be on its way.
    pub(super) fn lease_is_over(
        &self,
        now: &Now,
        activity: &Activity,
        name: &DatastoreName,
    ) -> bool {
        if activity.from == activity.target || !Guard::LeaseIsAwaited.holds() {
            return true;
        }
        let facts = activity.facts(name);
        if facts.old_confirmed_stopped || facts.fenced_at.is_some() {
            return true;
        }
        let old = NodeId::new(name.clone(), activity.from.clone());
        let silence = self.settings.limits.silence;
        let over = match self.seen.answering(&old, now.moment, silence) {
            Answering::ServerDown => self.has_news(&activity.from) || !Guard::DownNeedsNews.holds(),
            Answering::Yes | Answering::ServerSilent => false,
            // Its host says that nobody listens there, and no agent is left to start anything.
            Answering::No { .. } => matches!(self.reach.sight(now.moment, &old), Sight::Refused(_)),
        };
        over || now.moment >= self.lease_ends(&activity.from)
    }

    /// Whether the newest report of a region's agent was made in the epoch of the record, so that it
    /// refuses whatever it is told in an older one.
    fn has_news(&self, region: &Region) -> bool {
        let Some(record) = &self.record else { return false };
        let reported = self.seen.region(region).and_then(|seen| seen.report.as_ref());
        let heard = reported.and_then(|(report, _)| report.heard.as_ref());
        heard.is_some_and(|heard| heard.epoch >= record.epoch)
    }

    /// When the newest lease that a region's agent can have is over. It is counted from when the
    /// stamp that it answers came here, which is after it was made; no stamp that came after the
    /// swap was sent to the store has been answered, nor any by a run that found it swapped.
    fn lease_ends(&self, region: &Region) -> Moment {
        let began = self.watch.began();
        let reported = self.seen.region(region).and_then(|seen| seen.report.as_ref());
        let newest = reported.map_or(began, |(_, at)| *at);
        let answered = newest.min(self.swap_sent.unwrap_or(began));
        answered.max(began).after(with_drift(self.settings.limits.lease))
    }
}
