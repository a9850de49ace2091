//! Who may be given a lease, and when the one that the old side may still have is over (L1, L3).
//!
//! The holders are the agents: one that is granted nothing, and that no peer confirms, holds its
//! servers. This orchestrator is the only granter, since its store lets no other one in.

use crate::record::{DatastoreKind, OperationKind};
use crate::words::{DatastoreName, Moment, NodeId, Region};

use super::Orchestrator;
use super::activity::Activity;
use super::change::Change;
use super::input::Now;
use super::reach::Sight;
use super::seen::Answering;

/// By how much the holder's clock may run slower than this one, as a part of the lease.
const DRIFT: u32 = 20;

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
    /// promoted (L4).
    pub fn is_alone(&self) -> bool {
        let joining = self.activities.values().any(|activity| activity.kind == OperationKind::Join);
        !joining
            && self.record.as_ref().is_some_and(|record| {
                record
                    .datastores
                    .values()
                    .filter(|datastore| datastore.kind == DatastoreKind::Postgres)
                    .all(|datastore| datastore.takeover.is_empty())
            })
    }

    /// Whether the old side of a datastore serves nobody any more: it gave its lease up, or the
    /// lease has run out.
    pub(super) fn lease_is_over(
        &self,
        now: &Now,
        activity: &Activity,
        name: &DatastoreName,
    ) -> bool {
        if activity.from == activity.target {
            return true;
        }
        let facts = activity.facts(name);
        if facts.old_confirmed_stopped || facts.fenced_at.is_some() {
            return true;
        }
        let old = NodeId::new(name.clone(), activity.from.clone());
        let silence = self.settings.limits.silence;
        match self.seen.answering(&old, now.moment, silence) {
            Answering::ServerDown => return true,
            Answering::Yes | Answering::ServerSilent | Answering::No { .. } => {}
        }
        // Its host says that nobody listens there.
        if matches!(self.reach.sight(now.moment, &old), Sight::Refused(_)) {
            return true;
        }
        let region = self.seen.region(&activity.from);
        let heard = region.and_then(|seen| seen.heard.as_ref());
        let gave_up = self.record.as_ref().zip(heard).is_some_and(|(record, heard)| {
            heard.lineage == record.lineage && heard.epoch >= record.epoch
        });
        gave_up || now.moment >= self.lease_ends(&activity.from)
    }

    /// When the newest lease that a region's agent can have is over. It is counted from when the
    /// stamp came here, which is after it was made.
    fn lease_ends(&self, region: &Region) -> Moment {
        let lease = self.settings.limits.lease;
        let began = self.watch.began();
        let reported = self.seen.region(region).and_then(|seen| seen.report.as_ref());
        let newest = reported.map_or(began, |(_, at)| (*at).max(began));
        newest.after(lease + lease / DRIFT)
    }
}
