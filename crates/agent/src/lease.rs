//! The lease of a writer's region: for how long this agent may take it that nobody else is the
//! writer (L1, L2, L4). Pure: the time is handed in.
//!
//! A grant echoes this agent's own stamp, so that it counts from when the stamp was made, however
//! late it comes. A peer's confirmation counts from when it was asked for. Without an orchestrator
//! the peer's word is enough; with an empty takeover set nobody can be promoted, and none is needed.

use std::time::Duration;

use tier0_core::words::Region;

/// Time since the machine booted, which goes on while it is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub Duration);

impl Boot {
    /// Now, by the kernel's clock.
    pub fn now() -> Boot {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Boot(Duration::new(seconds, nanos))
    }

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
