//! Leases as an agent judges them: for how long it may take it that nobody else is the writer, what
//! becomes of its servers when it may not, and what it owes to a peer that relies on it (L1, L2, L4).
//! Pure: the time is handed in. Who grants, and when the old side's lease is over, is in
//! `orchestrator/leases.rs`.
//!
//! A grant echoes this agent's own stamp, so that it counts from when the stamp was made, however
//! late it comes. A peer's confirmation counts from when it was asked for. Without an orchestrator
//! the peer's word is enough; with an empty takeover set nobody can be promoted, and none is needed.

use std::time::Duration;

use crate::order::{Command, Order};
use crate::words::{Epoch, Heard, Lineage, Region};

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
    /// It may serve, and a peer should be asked: no grant has come for a while.
    Ending,
    /// Nobody says any more that it may.
    Over,
    /// Another region is the writer.
    Lost,
}

/// What is known.
#[derive(Debug, Clone)]
pub struct Lease {
    length: Duration,
    until: Boot,
    writer: Option<Region>,
    alone: bool,
}

impl Lease {
    /// As an agent begins: a predecessor may have had a lease that ends at most this late.
    pub fn new(length: Duration, now: Boot) -> Lease {
        Lease { length, until: Boot(now.0 + length), writer: None, alone: false }
    }

    /// How long a lease lasts.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What the newest record says: who is the writer, and whether no takeover set has a member.
    pub fn told(&mut self, writer: Region, alone: bool) {
        self.writer = Some(writer);
        self.alone = alone;
    }

    /// A standby is about to enter a takeover set: from here on a lease is needed, whatever was
    /// told before.
    pub fn joined(&mut self) {
        self.alone = false;
    }

    /// The granter gave it, in answer to a stamp of this agent.
    pub fn granted(&mut self, stamp: Boot, length: Duration) {
        self.length = length;
        self.until = self.until.max(Boot(stamp.0 + length));
    }

    /// A peer that may be promoted said that it knows of no other writer.
    pub fn confirmed(&mut self, asked: Boot) {
        self.until = self.until.max(Boot(asked.0 + self.length));
    }

    /// How `region` stands now.
    pub fn standing(&self, region: &Region, now: Boot) -> Standing {
        if self.writer.as_ref().is_some_and(|writer| writer != region) {
            return Standing::Lost;
        }
        let left = self.until.0.saturating_sub(now.0);
        if self.alone || left > self.length / 2 {
            Standing::Holds
        } else if !left.is_zero() {
            Standing::Ending
        } else {
            Standing::Over
        }
    }
}

/// A server, as far as leases go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It takes writes, and no command is under way.
    Writes,
    /// It is held.
    Held,
    /// Neither: it is left to what is under way, or there is nothing to hold.
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
        (Standing::Over, Server::Writes) => Holding::Hold,
        (Standing::Lost, Server::Held) => Holding::End,
        (
            Standing::Holds | Standing::Ending | Standing::Over | Standing::Lost,
            Server::Writes | Server::Held | Server::Other,
        ) => Holding::Leave,
    }
}

/// Until when a peer may rely on this agent promoting nobody (L4).
#[derive(Debug, Clone, Copy, Default)]
pub struct Reliance {
    until: Option<Boot>,
}

impl Reliance {
    /// A peer asks whether anybody else is the writer, in the epoch that it has heard of; whether it
    /// is told that nobody is, and may rely on that.
    pub fn confirm(
        &mut self,
        heard: Option<&Heard>,
        lineage: &Lineage,
        epoch: Epoch,
        length: Duration,
        now: Boot,
    ) -> bool {
        let same = heard.is_some_and(|heard| heard.lineage == *lineage && heard.epoch == epoch);
        if same {
            self.until = self.until.max(Some(Boot(now.0 + length)));
        }
        same
    }

    /// How long a command must wait for a peer that relies on this agent.
    pub fn delay(&self, command: &Command, now: Boot) -> Duration {
        match &command.order {
            // A primary that was stopped relies on nothing any more.
            Order::PostgresPromote { stopped_at: Some(_), .. } => Duration::ZERO,
            Order::PostgresPromote { .. }
            | Order::RedisPromote { .. }
            | Order::RedisSentinelFailover => {
                self.until.map_or(Duration::ZERO, |until| until.0.saturating_sub(now.0))
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Boot {
        Boot(Duration::from_millis(ms))
    }

    fn here() -> Region {
        "region1".parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_grant_counts_from_the_stamp_it_echoes_and_a_late_one_adds_nothing() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(here(), false);
        lease.granted(at(5_000), SECOND);
        assert_eq!(lease.standing(&here(), at(5_400)), Standing::Holds);
        assert_eq!(lease.standing(&here(), at(5_600)), Standing::Ending);
        // It was held up on its way for a minute.
        lease.granted(at(3_000), SECOND);
        assert_eq!(lease.standing(&here(), at(6_000)), Standing::Over);
    }

    #[test]
    fn a_peer_goes_on_without_an_orchestrator_and_its_word_counts_from_the_question() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(here(), false);
        lease.confirmed(at(700));
        assert_eq!(lease.standing(&here(), at(1_600)), Standing::Ending);
        assert_eq!(lease.standing(&here(), at(1_700)), Standing::Over);
    }

    #[test]
    fn nobody_to_be_promoted_needs_no_lease_and_another_writer_ends_it_at_once() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(here(), true);
        assert_eq!(lease.standing(&here(), at(60_000)), Standing::Holds);
        lease.told("region2".parse().unwrap(), true);
        assert_eq!(lease.standing(&here(), at(60_000)), Standing::Lost);
    }

    #[test]
    fn a_join_needs_a_lease_before_the_record_says_so() {
        let mut lease = Lease::new(SECOND, at(0));
        lease.told(here(), true);
        lease.joined();
        assert_eq!(lease.standing(&here(), at(60_000)), Standing::Over);
    }

    #[test]
    fn an_agent_that_was_told_nothing_has_what_its_predecessor_may_have_had() {
        let lease = Lease::new(SECOND, at(1_000));
        assert_eq!(lease.standing(&here(), at(1_999)), Standing::Ending);
        assert_eq!(lease.standing(&here(), at(2_000)), Standing::Over);
    }
}
