//! One direction of one link: what becomes of each packet. Pure: time is handed in, and chance comes
//! from a seed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::packet;
use super::shape::{Connections, Flow, Loss, Shape};

/// What waits at a thin link is at most as much as this sends; more is lost, as in a router.
const LONGEST_QUEUE: Duration = Duration::from_millis(500);

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at once.
    Now,
    /// It arrives then.
    At(Duration),
    /// It vanishes.
    Lost,
}

/// What a direction has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Packets that arrived or will.
    pub carried: u64,
    /// Packets that vanished because it was cut for them.
    pub cut: u64,
    /// Packets that vanished by chance.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
}

/// One direction.
#[derive(Debug, Clone)]
pub struct Lane {
    shape: Shape,
    counts: Counts,
    random: u64,
    /// When the last packet has left a thin link.
    sent_at: Duration,
    /// When the last packet arrives: none overtakes it.
    arrives_at: Duration,
    /// The connections that were opened since only such pass.
    opened: BTreeSet<packet::Connection>,
}

impl Lane {
    /// A plain one.
    pub fn new(seed: u64) -> Lane {
        Lane {
            shape: Shape::default(),
            counts: Counts::default(),
            random: seed,
            sent_at: Duration::ZERO,
            arrives_at: Duration::ZERO,
            opened: BTreeSet::new(),
        }
    }

    /// Its settings.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What it has carried.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Other settings from now on. What is under way arrives as it was to.
    pub fn reshape(&mut self, shape: Shape) {
        if shape.connections != self.shape.connections {
            self.opened.clear();
        }
        self.shape = shape;
    }

    /// How many copies of a packet there are to send: none of one that does not pass. One that ends
    /// its connection is changed to say so.
    pub fn copies(&mut self, packet: &mut [u8]) -> usize {
        let shape = self.shape;
        let fits = shape.largest.is_none_or(|most| packet.len() <= usize::from(most));
        if !fits || !self.passes(packet) {
            self.counts.cut += 1;
            return 0;
        }
        if self.happens(shape.reset) {
            packet::reset(packet);
        }
        1 + usize::from(self.happens(shape.doubled))
    }

    fn happens(&mut self, share: Loss) -> bool {
        let drawn = self.draw() % 1_000_000;
        share.takes(u32::try_from(drawn).unwrap_or(u32::MAX))
    }

    fn passes(&mut self, packet: &[u8]) -> bool {
        match self.shape.connections {
            Connections::All => true,
            Connections::Open => !packet::opens(packet),
            Connections::New => {
                let Some(connection) = packet::connection(packet) else { return true };
                if packet::opens(packet) {
                    self.opened.insert(connection);
                }
                self.opened.contains(&connection)
            }
        }
    }

    /// Whether what is under way still arrives: nothing leaves a link that was cut.
    pub fn delivers(&mut self) -> Flow {
        if self.shape.flow == Flow::Cut {
            self.counts.carried = self.counts.carried.saturating_sub(1);
            self.counts.cut += 1;
        }
        self.shape.flow
    }

    /// What becomes of a packet that was sent now.
    pub fn send(&mut self, now: Duration, bytes: usize) -> Fate {
        if self.shape.flow == Flow::Cut {
            self.counts.cut += 1;
            return Fate::Lost;
        }
        if self.happens(self.shape.loss) {
            self.counts.lost += 1;
            return Fate::Lost;
        }
        let mut at = now;
        if let Some(rate) = self.shape.rate {
            let begins = self.sent_at.max(now);
            if begins - now > LONGEST_QUEUE {
                self.counts.overflowed += 1;
                return Fate::Lost;
            }
            self.sent_at = begins + rate.time_of(bytes);
            at = self.sent_at;
        }
        at += self.hold();
        self.counts.carried += 1;
        if at <= now && self.arrives_at <= now {
            return Fate::Now;
        }
        self.arrives_at = self.arrives_at.max(at);
        Fate::At(self.arrives_at)
    }

    /// The delay, with jitter evenly spread around it.
    fn hold(&mut self) -> Duration {
        let (delay, jitter) = (self.shape.delay.time(), self.shape.jitter.time());
        if jitter.is_zero() {
            return delay;
        }
        let spread = 2 * jitter.as_micros() as u64 + 1;
        (delay + Duration::from_micros(self.draw() % spread)).saturating_sub(jitter)
    }

    /// SplitMix64: small, and even enough for dice.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::shape::Change;

    const MS: Duration = Duration::from_millis(1);

    fn lane(change: Change) -> Lane {
        let mut lane = Lane::new(7);
        lane.reshape(change.applied_to(lane.shape()));
        lane
    }

    #[test]
    fn a_plain_lane_delivers_at_once_and_a_cut_one_never() {
        let mut lane = Lane::new(1);
        assert_eq!(lane.send(MS, 100), Fate::Now);
        lane.reshape(Change::flow(Flow::Cut).applied_to(lane.shape()));
        assert_eq!(lane.send(2 * MS, 100), Fate::Lost);
        assert_eq!(lane.counts(), Counts { carried: 1, cut: 1, ..Counts::default() });
    }

    #[test]
    fn jitter_spreads_around_the_delay_and_keeps_the_order() {
        let mut lane = lane(Change {
            delay: "40ms".parse().ok(),
            jitter: "10ms".parse().ok(),
            ..Change::default()
        });
        let mut last = Duration::ZERO;
        let mut waits = Vec::new();
        for number in 0..1_000 {
            let now = number * 100 * MS;
            let Fate::At(at) = lane.send(now, 100) else { panic!("lost or at once") };
            assert!(at >= last, "overtaken");
            last = at;
            waits.push(at - now);
        }
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= 30 * MS && *least < 31 * MS, "{least:?}");
        assert!(*most <= 50 * MS && *most > 49 * MS, "{most:?}");
        // Sent together, they arrive in order.
        let mut together = Duration::ZERO;
        for _ in 0..100 {
            let Fate::At(at) = lane.send(last, 100) else { panic!("lost or at once") };
            assert!(at >= together);
            together = at;
        }
    }

    #[test]
    fn as_many_packets_vanish_as_was_said_and_the_same_ones_from_the_same_seed() {
        let lossy = || {
            let mut lane = lane(Change { loss: "2%".parse().ok(), ..Change::default() });
            (0..100_000).map(|_| lane.send(MS, 100)).collect::<Vec<Fate>>()
        };
        let fates = lossy();
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost} of 100000");
        assert_eq!(fates, lossy());
    }

    #[test]
    fn a_thin_lane_sends_one_after_the_other_and_loses_what_does_not_fit() {
        let mut lane = lane(Change { rate: "1mbit".parse().ok(), ..Change::default() });
        // 1250 bytes take 10 ms.
        assert_eq!(lane.send(MS, 1_250), Fate::At(11 * MS));
        assert_eq!(lane.send(MS, 1_250), Fate::At(21 * MS));
        let fates: Vec<Fate> = (0..100).map(|_| lane.send(MS, 1_250)).collect();
        assert_eq!(fates.iter().filter(|fate| **fate != Fate::Lost).count(), 49);
        assert_eq!(lane.counts().overflowed, 51);
    }

    #[test]
    fn large_packets_vanish_and_some_come_twice() {
        let mut lane =
            lane(Change { largest: Some(600), doubled: "10%".parse().ok(), ..Change::default() });
        assert_eq!(lane.copies(&mut [0; 601]), 0);
        let copies: usize = (0..10_000).map(|_| lane.copies(&mut [0; 600])).sum();
        assert!((10_800..11_200).contains(&copies), "{copies} of 10000");
    }

    #[test]
    fn only_open_or_only_new_connections_pass() {
        let mut lane = lane(Change { connections: Some(Connections::Open), ..Change::default() });
        let (mut opening, mut data) = (packet::tests::tcp(7, 0x02), packet::tests::tcp(7, 0x10));
        assert_eq!((lane.copies(&mut opening), lane.copies(&mut data)), (0, 1));
        let new = Change { connections: Some(Connections::New), ..Change::default() };
        lane.reshape(new.applied_to(lane.shape()));
        assert_eq!((lane.copies(&mut data), lane.copies(&mut opening)), (0, 1));
        assert_eq!(lane.copies(&mut data), 1);
        assert_eq!(lane.copies(&mut packet::tests::tcp(8, 0x10)), 0);
    }

    #[test]
    fn what_is_under_way_does_not_leave_a_link_that_was_cut() {
        let mut lane = lane(Change { delay: "5ms".parse().ok(), ..Change::default() });
        assert_eq!(lane.send(MS, 100), Fate::At(6 * MS));
        lane.reshape(Change::flow(Flow::Cut).applied_to(lane.shape()));
        assert_eq!(lane.delivers(), Flow::Cut);
        assert_eq!(lane.counts(), Counts { cut: 1, ..Counts::default() });
    }
}
