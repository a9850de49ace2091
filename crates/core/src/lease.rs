//! Leases as an agent judges them: for how long it may take it that nobody else is the writer, what
//! becomes of its servers when it may not, and what it owes to a peer that relies on it (L1, L2, L4).
//! Pure: the time is handed in. Who grants, and when the old side's lease is over, is in
//! `orchestrator/leases.rs`.
//!
//! A grant echoes this agent's own stamp, so that it counts from when the stamp was made, however
//! late it comes. A peer's confirmation counts from when it was asked for. Without an orchestrator
//! the peer's word is enough; with an empty takeover set nobody can be promoted, and none is needed.
//! All of this is of one epoch: what was said of an older one than was heard of says nothing.

use std::time::Duration;

use crate::guard::Guard;
use crate::order::{Command, Order};
use crate::steps::Step;
use crate::words::{Epoch, Heard, Lineage, Region};

/// By how much one clock may run slower than another, as a part of the time; and how late a server
/// may be held.
const DRIFT: u32 = 20;

/// For how long somebody else must take it that a lease of this length lasts.
pub fn with_drift(length: Duration) -> Duration {
    if Guard::DriftIsCounted.holds() { length + length / DRIFT } else { length }
}

/// Time since the machine booted, which goes on while it is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub Duration);

impl Boot {
    /// A stamp that was sent out and came back.
    pub fn from_stamp(micros: u64) -> Boot {
        Boot(Duration::from_micros(micros))
    }

    /// To be sent out.
    pub fn stamp(self) -> u64 {
        u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX)
    }
}

/// How this region stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may serve.
    Holds,
    /// It may serve, but no grant has come for a while.
    Ending,
    /// Nobody says any more that it may.
    Over,
    /// Another region is the writer.
    Lost,
    /// Another region is the writer, and the lease that this one had is over.
    Past,
}

/// What the record was said to hold.
#[derive(Debug, Clone)]
struct Told {
    epoch: Epoch,
    writer: Region,
    alone: bool,
}

/// What is known.
#[derive(Debug, Clone)]
pub struct Lease {
    length: Duration,
    until: Boot,
    told: Option<Told>,
    /// This region was the writer in this run of the agent.
    led: bool,
}

impl Lease {
    /// As an agent begins: a predecessor may have had a lease that ends at most this late.
    pub fn new(length: Duration, now: Boot) -> Lease {
        Lease { length, until: Boot(now.0 + length), told: None, led: false }
    }

    /// How long a lease lasts.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What the newest record says: who is the writer, and whether no takeover set has a member.
    pub fn told(&mut self, epoch: Epoch, region: &Region, writer: Region, alone: bool) {
        self.led |= writer == *region;
        self.told = Some(Told { epoch, writer, alone });
    }

    /// A command for a server of `region` begins.
    pub fn obeys(&mut self, region: &Region, command: &Command) {
        let epoch = command.stamp.epoch;
        if matches!(command.order, Order::PostgresJoinBegin { .. })
            && Guard::JoinNeedsLease.holds()
            && let Some(told) = &mut self.told
        {
            // A standby is about to enter a takeover set: from here on a lease is needed.
            told.alone = false;
        }
        if promotes(command) && self.told.as_ref().is_none_or(|told| told.epoch < epoch) {
            // Nobody else is promoted in that epoch, and its takeover sets begin empty.
            self.told(epoch, region, region.clone(), true);
        }
    }

    /// The granter gave it, in answer to a stamp of this agent.
    pub fn granted(&mut self, stamp: Boot, length: Duration, now: Boot) {
        let from = if Guard::CountsFromStamp.holds() { stamp } else { now };
        self.length = length;
        self.until = self.until.max(Boot(from.0 + length));
    }

    /// A peer that may be promoted said that it knows of no other writer.
    pub fn confirmed(&mut self, asked: Boot) {
        self.until = self.until.max(Boot(asked.0 + self.length));
    }

    /// What was said of the newest epoch that was heard of.
    fn newest(&self, heard: Option<&Heard>) -> Option<&Told> {
        let current = |told: &&Told| {
            heard.is_none_or(|heard| heard.epoch <= told.epoch) || !Guard::NewsEndsWord.holds()
        };
        self.told.as_ref().filter(current)
    }

    /// Whether a peer should be asked: no grant has come for a while, even where none is needed at
    /// the moment, and its word would count. It would not if an epoch was heard of in which the
    /// writer may be another.
    pub fn asks(&self, region: &Region, heard: &Heard, now: Boot) -> bool {
        if self.until.0.saturating_sub(now.0) > self.length / 2 {
            return false;
        }
        match (&self.told, self.newest(Some(heard))) {
            (None, _) => true,
            (Some(_), newest) => newest.is_some_and(|told| told.writer == *region),
        }
    }

    /// How `region` stands now.
    pub fn standing(&self, region: &Region, heard: Option<&Heard>, now: Boot) -> Standing {
        let left = self.until.0.saturating_sub(now.0);
        let newest = self.newest(heard);
        if newest.is_some_and(|told| told.writer != *region) {
            let past = left.is_zero() && self.led && Guard::SupersededIsHeld.holds();
            return if past { Standing::Past } else { Standing::Lost };
        }
        let alone = newest.is_some_and(|told| told.alone);
        if alone || left > self.length / 2 {
            Standing::Holds
        } else if !left.is_zero() {
            Standing::Ending
        } else {
            Standing::Over
        }
    }

    /// Until when what passes answers on for this region's servers may do so, which is never later
    /// than this agent would hold them; `None` where it may not, by this agent's word.
    ///
    /// Where nobody can be promoted no lease is needed, but what passes answers on does not hear at
    /// once that a standby joins: it is told so for a time that no join and move fit into.
    pub fn passes_until(&self, region: &Region, heard: Option<&Heard>, now: Boot) -> Option<Boot> {
        match self.standing(region, heard, now) {
            Standing::Holds | Standing::Ending => {
                let alone = self.newest(heard).is_some_and(|told| told.alone);
                let shortly = Boot(now.0 + self.length / 4);
                Some(if alone { self.until.max(shortly) } else { self.until })
            }
            Standing::Over | Standing::Lost | Standing::Past => None,
        }
    }
}

/// Whether a command makes a node of a new writer's region serve.
fn promotes(command: &Command) -> bool {
    match &command.order {
        Order::PostgresPromote { .. }
        | Order::RedisPromote { .. }
        | Order::RedisSentinelFailover => true,
        // A target that ended after the swap is promoted by being started.
        Order::RedisStart { .. } => command.step == Step::PromoteRedis,
        _ => false,
    }
}

/// A server, as far as leases go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It takes writes, or did when it last answered.
    Writes,
    /// The same, but it was made to refuse writes.
    Fenced,
    /// It is held.
    Held,
    /// Neither: there is nothing to hold, or it is just being stopped or made a standby.
    Other,
}

/// What becomes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Nothing.
    Leave,
    /// No byte comes out of it, nor in.
    Hold,
    /// It goes on where it was.
    Release,
    /// It is ended where it is: what clients sent meanwhile would be obeyed first.
    End,
}

/// What becomes of a server of this region, as the region stands (L2).
pub fn holding(standing: Standing, server: Server) -> Holding {
    match (standing, server) {
        (Standing::Holds | Standing::Ending, Server::Held) => Holding::Release,
        (Standing::Over, Server::Writes | Server::Fenced) if Guard::OverIsHeld.holds() => {
            Holding::Hold
        }
        (Standing::Past, Server::Writes) => Holding::Hold,
        (Standing::Lost | Standing::Past, Server::Held) => {
            if Guard::SupersededIsEnded.holds() {
                Holding::End
            } else {
                Holding::Release
            }
        }
        (
            Standing::Holds | Standing::Ending | Standing::Over | Standing::Lost | Standing::Past,
            Server::Writes | Server::Fenced | Server::Held | Server::Other,
        ) => Holding::Leave,
    }
}

/// What an agent that is asked by a peer knows.
#[derive(Debug)]
pub struct Knows<'a> {
    /// Its region.
    pub region: &'a Region,
    /// How that stands.
    pub lease: &'a Lease,
    /// The newest record that it has heard of.
    pub heard: Option<&'a Heard>,
    /// A server of this region that takes writes, if there is one.
    pub here: Server,
}

/// Until when a peer may rely on this agent promoting nobody (L4).
#[derive(Debug, Clone, Copy, Default)]
pub struct Reliance {
    until: Option<Boot>,
}

impl Reliance {
    /// As an agent begins: what its predecessor promised still holds. A promise from before the
    /// machine booted is over, whatever its clock says.
    pub fn resumed(until: Option<Boot>, length: Duration, now: Boot) -> Reliance {
        let most = Boot(now.0 + with_drift(length));
        let kept = until.filter(|_| Guard::PromiseOutlivesAgent.holds());
        Reliance { until: kept.map(|until| until.min(most)) }
    }

    /// Until when a peer relies on this agent: to be kept before it is told so.
    pub fn until(&self) -> Option<Boot> {
        self.until
    }

    /// A peer asks whether anybody else is the writer, in the epoch that it has heard of; whether it
    /// is told that nobody is, and may rely on that. The time counts longer here than there.
    pub fn confirm(
        &mut self,
        knows: &Knows,
        lineage: &Lineage,
        epoch: Epoch,
        length: Duration,
        now: Boot,
    ) -> bool {
        let same =
            knows.heard.is_some_and(|heard| heard.lineage == *lineage && heard.epoch == epoch);
        let told = knows.lease.told.as_ref();
        let leads =
            told.is_some_and(|told| told.writer == *knows.region) || knows.here == Server::Writes;
        let sure = same && !(leads && Guard::WriterVouchesForNobody.holds());
        if sure || !Guard::VouchesInOneEpoch.holds() {
            self.until = self.until.max(Some(Boot(now.0 + with_drift(length))));
            return true;
        }
        false
    }

    /// How long a command must wait for a peer that relies on this agent.
    pub fn delay(&self, command: &Command, now: Boot) -> Duration {
        // A primary that was stopped relies on nothing any more.
        let stopped = matches!(command.order, Order::PostgresPromote { stopped_at: Some(_), .. });
        if stopped || !promotes(command) || !Guard::PromiseIsKept.holds() {
            return Duration::ZERO;
        }
        self.until.map_or(Duration::ZERO, |until| until.0.saturating_sub(now.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Revision, Stamp, StepNumber};

    fn at(ms: u64) -> Boot {
        Boot(Duration::from_millis(ms))
    }

    fn here() -> Region {
        "region1".parse().unwrap()
    }

    fn there() -> Region {
        "region2".parse().unwrap()
    }

    fn heard(epoch: u64) -> Heard {
        Heard {
            lineage: "11111111-0000".parse().unwrap(),
            epoch: Epoch::read(epoch),
            revision: Revision::FIRST,
        }
    }

    fn command(epoch: u64, order: Order) -> Command {
        let stamp = Stamp {
            lineage: heard(epoch).lineage,
            epoch: Epoch::read(epoch),
            revision: Revision::FIRST,
            step: StepNumber::FIRST,
        };
        let node = "main.region1".parse().unwrap();
        Command { node, stamp, step: Step::Promote, order, limit_ms: 1_000 }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_grant_counts_from_the_stamp_it_echoes_and_a_late_one_adds_nothing() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), here(), false);
        lease.granted(at(5_000), SECOND, at(5_010));
        assert_eq!(lease.standing(&here(), None, at(5_400)), Standing::Holds);
        assert_eq!(lease.standing(&here(), None, at(5_600)), Standing::Ending);
        // It was held up on its way for a minute.
        lease.granted(at(3_000), SECOND, at(5_990));
        assert_eq!(lease.standing(&here(), None, at(6_000)), Standing::Over);
    }

    #[test]
    fn a_peer_goes_on_without_an_orchestrator_and_its_word_counts_from_the_question() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), here(), false);
        lease.confirmed(at(700));
        assert_eq!(lease.standing(&here(), None, at(1_600)), Standing::Ending);
        assert_eq!(lease.standing(&here(), None, at(1_700)), Standing::Over);
    }

    #[test]
    fn nobody_to_be_promoted_needs_no_lease_and_another_writer_ends_it_at_once() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), here(), true);
        assert_eq!(lease.standing(&here(), None, at(60_000)), Standing::Holds);
        lease.told(Epoch::FIRST.next(), &here(), there(), true);
        // It had no lease that could still run.
        assert_eq!(lease.standing(&here(), None, at(60_000)), Standing::Past);
        lease.until = at(60_500);
        assert_eq!(lease.standing(&here(), None, at(60_000)), Standing::Lost);
    }

    #[test]
    fn answers_are_passed_on_for_no_longer_than_the_servers_may_serve() {
        let mut lease = Lease::new(SECOND, at(0));
        let passes = |lease: &Lease, now: u64| lease.passes_until(&here(), None, at(now));
        lease.told(Epoch::FIRST, &here(), here(), false);
        lease.granted(at(5_000), SECOND, at(5_010));
        for now in [5_100, 5_900] {
            assert_eq!(passes(&lease, now), Some(at(6_000)));
        }
        assert_eq!(passes(&lease, 6_000), None);
        lease.told(Epoch::FIRST, &here(), here(), true);
        assert_eq!(passes(&lease, 5_100), Some(at(6_000)));
        assert_eq!(passes(&lease, 60_000), Some(at(60_250)));
        lease.told(Epoch::FIRST.next(), &here(), there(), true);
        assert_eq!(passes(&lease, 5_100), None);
    }

    #[test]
    fn a_join_needs_a_lease_before_the_record_says_so() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), here(), true);
        let name = "main.region2#1".parse().unwrap();
        lease.obeys(&here(), &command(1, Order::PostgresJoinBegin { name, join_limit_ms: 300 }));
        assert_eq!(lease.standing(&here(), None, at(60_000)), Standing::Over);
    }

    #[test]
    fn an_agent_that_was_told_nothing_has_what_its_predecessor_may_have_had() {
        let lease = Lease::new(SECOND, at(1_000));
        assert_eq!(lease.standing(&here(), None, at(1_999)), Standing::Ending);
        assert_eq!(lease.standing(&here(), None, at(2_000)), Standing::Over);
    }

    #[test]
    fn a_newer_epoch_makes_what_was_said_of_the_older_one_worth_nothing() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), here(), true);
        assert_eq!(lease.standing(&here(), Some(&heard(1)), at(60_000)), Standing::Holds);
        assert!(lease.asks(&here(), &heard(1), at(60_000)));
        // By a command's stamp, say; who the writer is it does not tell.
        assert_eq!(lease.standing(&here(), Some(&heard(2)), at(60_000)), Standing::Over);
        assert!(!lease.asks(&here(), &heard(2), at(60_000)));
    }

    #[test]
    fn a_region_that_is_promoted_is_the_writer_before_anybody_says_so() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), there(), false);
        assert_eq!(lease.standing(&here(), Some(&heard(1)), at(60_000)), Standing::Lost);
        let order = Order::PostgresPromote {
            member: None,
            stopped_at: None,
            accept_loss: true,
            names: None,
        };
        lease.obeys(&here(), &command(2, order));
        assert_eq!(lease.standing(&here(), Some(&heard(2)), at(60_000)), Standing::Holds);
    }

    #[test]
    fn a_promise_outlives_the_agent_and_lasts_longer_here_than_there() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(Epoch::FIRST, &here(), there(), false);
        let (heard, mut reliance) = (heard(1), Reliance::default());
        let knows =
            Knows { region: &here(), lease: &lease, heard: Some(&heard), here: Server::Other };
        assert!(reliance.confirm(&knows, &heard.lineage, heard.epoch, SECOND, at(5_000)));
        let order = Order::RedisPromote { accept_loss: false };
        let promote = command(2, order);
        assert_eq!(reliance.delay(&promote, at(5_000)), Duration::from_millis(1_050));
        let next = Reliance::resumed(reliance.until(), SECOND, at(5_500));
        assert_eq!(next.delay(&promote, at(5_500)), Duration::from_millis(550));
        // The machine was booted meanwhile.
        let next = Reliance::resumed(reliance.until(), SECOND, at(100));
        assert_eq!(next.delay(&promote, at(100)), Duration::from_millis(1_050));
    }

    #[test]
    fn who_may_be_the_writer_vouches_for_nobody() {
        let mut lease = Lease::new(SECOND, at(0));
        let heard = heard(1);
        let ask = |lease: &Lease, here_is: Server| {
            let knows = Knows { region: &here(), lease, heard: Some(&heard), here: here_is };
            Reliance::default().confirm(&knows, &heard.lineage, heard.epoch, SECOND, at(0))
        };
        assert!(ask(&lease, Server::Other));
        assert!(!ask(&lease, Server::Writes));
        lease.told(Epoch::FIRST, &here(), here(), false);
        assert!(!ask(&lease, Server::Other));
    }
}
