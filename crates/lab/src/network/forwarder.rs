//! The one process through which all packets between the ends of a lab go: it owns a TUN device at
//! each end, asks the lane what becomes of a packet, and delivers it there at its time.
//!
//! It runs as root, because devices need it, and does nothing else. When it ends, however it ends,
//! the devices are gone, and the sites reach only themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio_tun::Tun;

use super::End;
use super::control::{self, LaneView, Order, What};
use super::lane::{Fate, Lane};
use super::namespaces;
use super::shape::{Flow, Shape};

/// As on most real links.
const LARGEST_PACKET: i32 = 1_500;
const HEADER: usize = 20;
const DESTINATION: std::ops::Range<usize> = 16..20;

/// All lanes of a lab.
pub struct Lanes {
    begun: Instant,
    lanes: Mutex<Vec<Vec<Lane>>>,
}

impl Lanes {
    fn new(seed: u64) -> Lanes {
        let lane = |from: End, to: End| {
            let number = from.index() * End::ALL.len() + to.index();
            Lane::new(seed.wrapping_add((number as u64) << 32))
        };
        let row = |from: End| End::ALL.into_iter().map(|to| lane(from, to)).collect();
        let lanes = End::ALL.into_iter().map(row).collect();
        Lanes { begun: Instant::now(), lanes: Mutex::new(lanes) }
    }

    fn with<T>(&self, from: End, to: End, act: impl FnOnce(&mut Lane) -> T) -> T {
        // Nothing is done with a lane that could leave it half-changed.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut lanes[from.index()][to.index()])
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Carry out orders, and say how things are then.
    pub fn obey(&self, orders: &[Order]) -> Vec<LaneView> {
        for order in orders {
            for (from, to) in &order.lanes {
                self.with(*from, *to, |lane| {
                    lane.reshape(match order.what {
                        What::Change(change) => change.applied_to(lane.shape()),
                        What::Restore => Shape::default(),
                    });
                });
            }
        }
        let pairs = End::ALL.into_iter().flat_map(|from| End::ALL.map(|to| (from, to)));
        pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| {
                self.with(from, to, |lane| LaneView {
                    from,
                    to,
                    shape: lane.shape(),
                    counts: lane.counts(),
                })
            })
            .collect()
    }
}

/// A packet that arrives later. Of two with the same time the first sent is first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    at: Duration,
    number: u64,
    from: End,
    to: End,
    packet: Vec<u8>,
}

/// The ends of all links.
struct Wires {
    instance: u8,
    lanes: Arc<Lanes>,
    devices: Vec<Tun>,
}

impl Wires {
    fn deliver(&self, to: End, packet: &[u8]) {
        // A device that takes no packet loses it, as a device does; nobody could be told.
        let _ = self.devices[to.index()].try_send(packet);
    }

    /// Read what comes from one end for ever.
    async fn read(&self, from: End, later: Sender<Held>) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut number = 0;
        loop {
            let length = self.devices[from.index()].recv(&mut buffer).await;
            let length = length.with_context(|| format!("read from {}", from.name()))?;
            let packet = &mut buffer[..length];
            let Some(to) = destination(packet, self.instance).filter(|to| *to != from) else {
                continue;
            };
            let now = self.lanes.now();
            for _ in 0..self.lanes.with(from, to, |lane| lane.copies(packet)) {
                match self.lanes.with(from, to, |lane| lane.send(now, packet.len())) {
                    Fate::Now => self.deliver(to, packet),
                    Fate::Lost => {}
                    Fate::At(at) => {
                        number += 1;
                        let held = Held { at, number, from, to, packet: packet.to_vec() };
                        later.send(held).map_err(|_| anyhow!("nobody delivers any more"))?;
                    }
                }
            }
        }
    }

    /// Deliver what was held, each packet at its time. On a thread, because the runtime's timers
    /// are a millisecond wide.
    fn deliver_later(&self, held: &Receiver<Held>) {
        let mut waiting = BinaryHeap::new();
        loop {
            let now = self.lanes.now();
            while waiting.peek().is_some_and(|Reverse(first): &Reverse<Held>| first.at <= now) {
                let Some(Reverse(first)) = waiting.pop() else { break };
                if self.lanes.with(first.from, first.to, Lane::delivers) == Flow::Open {
                    self.deliver(first.to, &first.packet);
                }
            }
            let next = match waiting.peek() {
                Some(Reverse(first)) => held.recv_timeout(first.at.saturating_sub(now)),
                None => held.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(one) => waiting.push(Reverse(one)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Where an IPv4 packet goes. Others, such as a device's questions after IPv6 routers, go nowhere.
fn destination(packet: &[u8], instance: u8) -> Option<End> {
    if packet.len() < HEADER || packet[0] >> 4 != 4 {
        return None;
    }
    let bytes: [u8; 4] = packet[DESTINATION].try_into().ok()?;
    End::of_address(Ipv4Addr::from(bytes), instance)
}

/// Be the links of the lab in `directory`, until that is taken down.
pub async fn run(directory: &Path, instance: u8, seed: u64) -> Result<()> {
    let mut devices = Vec::new();
    for end in End::ALL {
        let name = end.device(instance);
        let built = Tun::builder().name(&name).mtu(LARGEST_PACKET).close_on_exec().build();
        let device = built.map_err(|error| anyhow!("make the device {name}: {error}"))?;
        devices.extend(device);
        namespaces::plug(end, instance)?;
    }
    let lanes = Arc::new(Lanes::new(seed));
    let wires = Arc::new(Wires { instance, lanes: lanes.clone(), devices });
    let (later, held) = channel();
    let mut readers = tokio::task::JoinSet::new();
    for from in End::ALL {
        let (wires, later) = (wires.clone(), later.clone());
        readers.spawn(async move { wires.read(from, later).await });
    }
    std::thread::spawn(move || wires.deliver_later(&held));
    control::serve(directory, lanes)?;
    println!("links of lab {instance} with seed {seed}");
    tokio::select! {
        ended = readers.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            _ => bail!("a reader ended"),
        },
        // What its lab no longer needs must not stay, whatever happened to who would end it.
        () = gone(directory) => bail!("{} is gone", directory.display()),
    }
}

async fn gone(directory: &Path) {
    while directory.exists() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_find_their_end_and_others_go_nowhere() {
        let mut packet = [0_u8; 40];
        packet[0] = 0x45;
        packet[DESTINATION].copy_from_slice(&End::Witness.address(5).octets());
        assert_eq!(destination(&packet, 5), Some(End::Witness));
        assert_eq!(destination(&packet, 6), None);
        assert_eq!(destination(&packet[..19], 5), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet, 5), None);
    }

    #[test]
    fn an_order_changes_its_lanes_and_no_other() {
        let lanes = Lanes::new(1);
        let cut = super::super::shape::Change::flow(Flow::Cut);
        let one_way = vec![(End::Region1, End::Region2)];
        let views = lanes.obey(&[Order { lanes: one_way.clone(), what: What::Change(cut) }]);
        assert_eq!(views.len(), 12);
        let cut: Vec<_> = views.iter().filter(|view| view.shape.flow == Flow::Cut).collect();
        assert_eq!((cut.len(), cut[0].from, cut[0].to), (1, End::Region1, End::Region2));
        let views = lanes.obey(&[Order { lanes: one_way, what: What::Restore }]);
        assert!(views.iter().all(|view| view.shape == Shape::default()));
    }
}
