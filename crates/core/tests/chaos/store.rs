//! The store of the record: it compares and swaps, loses answers, has a slow disk, and is sometimes
//! put back from a copy.

use tier0_core::orchestrator::*;
use tier0_core::record::{Automatic, ClaimPhase, DatastoreKind, End, Record};
use tier0_core::words::*;

use super::*;

/// After this long nothing that was sent before is under way any more.
const LONG_WELL: u64 = 6 * SECOND;

/// What was sent longer ago than this was decided by what was seen then.
const LATE: u64 = 20 * MS;

/// How many old records are kept, to go back to.
const COPIES: usize = 30;

impl Chaos {
    pub(super) fn store(&mut self, run: u64, expected: &Heard, next: Record) {
        if self.is_shared() {
            return self.send_swap(run, expected, next);
        }
        let mut wait = self.random.between(1, 15) * MS + self.disk_stall();
        let lost = self.wild && self.random.once_in(self.parameters.store_loses_once_in);
        assert_eq!(next.driver, format!("run-{run}"), "run {run} changes what another drives");
        let reached = !lost || self.random.once_in(2);
        let mut answer = StoreAnswer::Stored;
        if reached {
            answer = self.swap(run, expected, next, self.now);
        }
        if lost {
            self.counts.store_unknown += 1;
            wait += 50 * MS;
            answer = StoreAnswer::Unknown { why: "no answer".to_owned() };
        }
        self.after(wait, Event::ToCore { run, input: Input::Stored(answer) });
    }

    /// What was sent a while ago is compared and swapped.
    pub(super) fn swap(
        &mut self,
        run: u64,
        expected: &Heard,
        next: Record,
        sent: u64,
    ) -> StoreAnswer {
        if self.stored.heard() != *expected {
            return StoreAnswer::Lost { current: Box::new(self.stored.clone()) };
        }
        assert!(
            self.went_back_from.is_none(),
            "the store went back to {} and was written to",
            self.stored.heard()
        );
        self.check_successor(&next);
        if next.epoch != self.stored.epoch {
            self.check_left_behind(run, &next, sent);
        }
        self.copies.push_back(std::mem::replace(&mut self.stored, next));
        if self.copies.len() > COPIES {
            self.copies.pop_front();
        }
        StoreAnswer::Stored
    }

    pub(super) fn load(&mut self, run: u64) {
        if self.is_shared() && !self.has_store(run) {
            if self.cores.contains_key(&run) {
                self.after(100 * MS, Event::Load { run });
            }
            return;
        }
        if let Some(post) = self.posts.get_mut(&run) {
            post.settled_at = self.now;
        }
        let wait = self.random.between(1, 20) * MS;
        // A read is linearizable: it sees what is there when it is made.
        let record = self.stored.clone();
        self.after(wait, Event::ToCore { run, input: Input::Loaded(record) });
    }

    /// How long a disk keeps a write waiting.
    pub(super) fn disk_stall(&mut self) -> u64 {
        let often = self.parameters.disk_stalls_once_in;
        if !self.wild || often == u64::MAX || !self.random.once_in(often) {
            return 0;
        }
        self.counts.disks_stalled += 1;
        self.random.between(50, 3_000) * MS
    }

    /// Epoch and revision only grow, and the writer changes only with the epoch.
    fn check_successor(&mut self, next: &Record) {
        let before = self.stored.clone();
        assert_eq!(next.revision, before.revision.next());
        assert!(next.epoch >= before.epoch && next.epoch <= before.epoch.next());
        assert_eq!(next.writer != before.writer, next.epoch != before.epoch);
        self.check_claim(&before, next);
        if next.driver != before.driver {
            // Who takes the seat changes nothing else with it.
            let (driver, revision) = (next.driver.clone(), next.revision);
            assert_eq!(*next, Record { driver, revision, ..before.clone() });
        }
        for (name, datastore) in &next.datastores {
            let (was, is) = (&before.datastores[name].takeover, &datastore.takeover);
            self.counts.joins += u64::from(was.is_empty() && !is.is_empty());
            self.counts.leaves += u64::from(!was.is_empty() && is.is_empty());
            for (node, member) in is {
                assert!(*node.region() != next.writer, "{node} may take over from itself");
                assert!(member.name.node() == node && is.len() == 1);
            }
        }
        if next.epoch != before.epoch {
            self.check_swap(&before, next);
        }
        let claim = next.claim.as_ref();
        self.say(|| {
            format!(
                "stored e{} r{} writer {} claim {:?}",
                next.epoch,
                next.revision,
                next.writer,
                claim.map(|claim| (claim.kind, claim.phase, claim.accept_loss))
            )
        });
    }

    /// Who owns the stack goes on, is aborted, or moves the writer; and never two of these (R4).
    fn check_claim(&mut self, before: &Record, next: &Record) {
        let Some(was) = &before.claim else { return };
        match &next.claim {
            None => {
                let finished = next.finished.as_ref().unwrap();
                assert_eq!(finished.operation, was.operation, "it left, and it is not said how");
                assert!(was.superseded.is_none() || was.phase != ClaimPhase::After);
                let undone = matches!(finished.end, End::Undone { .. });
                assert_eq!(undone, was.phase != ClaimPhase::After, "{was:?} ended as {finished:?}");
            }
            Some(is) if is.superseded.as_deref() == Some(was) => {
                assert_eq!(was.phase, ClaimPhase::After, "it was replaced, and may yet be undone");
                assert_eq!(is.phase, ClaimPhase::Before);
                self.counts.superseded += 1;
            }
            Some(is) if was.superseded.as_deref() == Some(is) => {
                let finished = next.finished.as_ref().unwrap();
                assert_eq!(finished.operation, was.operation, "it left, and it is not said how");
                assert!(
                    matches!(finished.end, End::Undone { .. }) && was.phase != ClaimPhase::After
                );
            }
            Some(is) => {
                assert_eq!(is.operation, was.operation, "another operation took the stack");
                let allowed = match was.phase {
                    ClaimPhase::Before => true,
                    ClaimPhase::Aborting => is.phase == ClaimPhase::Aborting,
                    ClaimPhase::After => is.phase == ClaimPhase::After,
                };
                assert!(allowed, "from {:?} to {:?}", was.phase, is.phase);
            }
        }
    }

    fn check_swap(&mut self, before: &Record, next: &Record) {
        let claim = next.claim.as_ref().unwrap();
        assert_eq!(claim.phase, ClaimPhase::After);
        self.loss_accepted = claim.accept_loss;
        self.counts.swaps += 1;
        let heard = self.agents[&next.writer].heard.as_ref();
        assert!(
            heard.is_some_and(|heard| heard.covers(&before.heard())),
            "the target has heard {heard:?}, and the swap starts from {}",
            before.heard()
        );
        self.counts.swaps_with_loss_accepted += u64::from(claim.accept_loss);
        self.at_swap.clear();
        for (name, datastore) in &before.datastores {
            let proven =
                datastore.takeover.contains_key(&NodeId::new(name.clone(), next.writer.clone()));
            self.at_swap.insert(name.clone(), proven);
            if datastore.kind != DatastoreKind::Postgres {
                continue;
            }
            assert!(
                proven || claim.accept_loss,
                "the writer moves, {name} has no member there, and nobody consented"
            );
            assert!(
                next.datastores[name].takeover.is_empty(),
                "the old side may take over at once"
            );
            if !proven {
                self.may_hold_lost.insert(NodeId::new(name.clone(), before.writer.clone()));
            }
        }
    }

    /// What the writer moves away from: an old side without a member opposite was heard a moment ago
    /// (P4), and no Redis that has been well for a long while goes on taking writes (D1).
    fn check_left_behind(&self, run: u64, next: &Record, sent: u64) {
        let from = &self.stored.writer;
        let claim = next.claim.as_ref().unwrap();
        let heard_at = self.heard_at.get(&(run, from.clone())).copied().unwrap_or(0);
        let member = |name: &DatastoreName| !self.stored.datastores[name].takeover.is_empty();
        let postgres =
            |name: &&DatastoreName| self.stored.datastores[*name].kind == DatastoreKind::Postgres;
        let proven = self.stored.datastores.keys().filter(postgres).all(member);
        assert!(
            proven || claim.old_side_is_down || sent.saturating_sub(heard_at) <= SECOND * 5 / 4,
            "no member, and {from} was last heard {} ms ago",
            sent.saturating_sub(heard_at) / MS
        );
        if self.now - sent > LATE {
            return;
        }
        let agent = &self.agents[from];
        for (id, server) in self.servers.iter().filter(|(id, _)| id.region() == from) {
            let well = self.now - agent.well_since.max(server.well_since) > LONG_WELL;
            let reached = agent.up && agent.linked && !agent.mute && server.is_primary();
            let takes = server.kind == DatastoreKind::Redis && server.min_replicas < 99;
            assert!(
                claim.accept_loss || !(well && reached && takes),
                "{id} has been well for long, takes writes, and is left behind"
            );
        }
    }

    /// The store is put back from a copy that somebody made a while ago, under a running
    /// orchestrator or with it stopped.
    pub(super) fn roll_back(&mut self) {
        let newest = self.stored.heard();
        let knows = |agent: &Agent| {
            agent.up && agent.linked && !agent.mute && agent.heard.as_ref() == Some(&newest)
        };
        // Where nobody who answers has heard of the newest record, nobody can notice.
        let all_know = self.agents.values().all(knows) && self.cores.len() == 1;
        if self.is_shared() || !all_know || self.stored.claim.is_some() || self.copies.is_empty() {
            return;
        }
        let back = self.random.below(self.copies.len() as u64) as usize + 1;
        let place = self.copies.len() - back;
        let old = self.copies[place].clone();
        if old.driver == "nobody" {
            return;
        }
        self.copies.truncate(place);
        self.say(|| format!("the store goes back to {}", old.heard()));
        self.counts.store_rolled_back += 1;
        self.went_back_from = Some(std::mem::replace(&mut self.stored, old));
        self.went_back_at = self.now;
        if self.random.once_in(2) {
            self.core_down(false);
        }
    }

    /// Every quarter of a second: a person looks whether anything stands still.
    pub(super) fn look_after(&mut self) {
        if self.is_shared() {
            return self.check_none_frozen();
        }
        if self.went_back_from.is_none() {
            // Deposed or mistaken: its supervisor begins it anew.
            if self.core().is_some_and(|core| core.frozen().is_some()) {
                self.core_down(false);
            }
            return;
        }
        if self.now > self.went_back_at + 4 * SECOND
            && self.core().is_some_and(|core| core.frozen().is_none())
        {
            // It has had nothing to store since, and nobody has noticed.
            self.core_down(false);
            return;
        }
        let calm = self.agents.values().all(|agent| agent.up && agent.linked)
            && self.now > self.went_back_at + 4 * SECOND
            && self.cores.values().all(|core| core.frozen().is_some());
        if calm {
            self.adopt();
        }
    }

    /// `tier0 authority adopt`, with the orchestrator stopped.
    fn adopt(&mut self) {
        let Some(newest) = self.went_back_from.take() else { return };
        let mut heard = newest.heard();
        for agent in self.agents.values() {
            let of_agent = agent.heard.as_ref().unwrap();
            heard.epoch = heard.epoch.max(of_agent.epoch);
            heard.revision = heard.revision.max(of_agent.revision);
        }
        let primaries: Vec<Region> = self
            .servers
            .iter()
            .filter(|(_, server)| server.kind == DatastoreKind::Postgres && server.is_primary())
            .map(|(id, _)| id.region().clone())
            .collect();
        let writer = match primaries.first() {
            Some(_) if primaries.contains(&newest.writer) => newest.writer.clone(),
            Some(first) => first.clone(),
            None => newest.writer.clone(),
        };
        self.cores.clear();
        self.queue.retain(|_, event| !matches!(event, Event::Command { .. }));
        self.sent.clear();
        let settings = self.parameters.settings();
        let wall = WallMillis(self.now as i64 / 1000);
        let first = first_record(
            settings.stack.clone(),
            &settings.shape,
            newest.lineage.clone(),
            "adopted".to_owned(),
            Automatic::default(),
            wall,
        );
        self.stored = adopted_record(first, writer, &heard, wall);
        self.copies.clear();
        // What was held is not known any more: a person releases by adopting.
        self.may_hold_lost.clear();
        self.loss_accepted = false;
        self.counts.adopted += 1;
        self.say(|| format!("adopted {heard}"));
        self.core_run += 1;
        self.after(10 * MS, Event::CoreUp);
    }
}
