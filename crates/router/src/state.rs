//! Where a route points, and whether it holds: one value that every connection watches.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tier0_config::ProxyProtocol;
use tier0_core::words::{Epoch, Region};
use tier0_route::control::{Answer, RouterState};
use tier0_route::{Pointed, pointer};
use tokio::sync::{Semaphore, watch};

use crate::Way;
use crate::lease::{Lease, now_us};

/// How many connections to servers are made at once. Those that waited come in this order, not
/// all together, onto a server that is cold.
const AT_ONCE: usize = 64;
/// How many of the agent's own clients may be on their way.
const ADMITTED_MOST: usize = 8;
/// For how long: one that did not come may have been another's address since.
const ADMITTED_FOR: Duration = Duration::from_secs(2);
/// A hold may not last longer than this, whatever is asked for.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// How a route is at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    hold: Option<Hold>,
    target: Option<Target>,
    /// How often it was pointed away from each region's server: a connection of an earlier time is not
    /// one of now, also where the writer is the same again.
    left: BTreeMap<Region, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    began: Instant,
    until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    pointed: Pointed,
    address: SocketAddr,
}

impl Standing {
    /// Where a new connection goes now, and how often the writer had left that; `None` while it has to
    /// wait.
    pub fn open(&self, gate: Gate) -> Option<(Region, SocketAddr, u64)> {
        match gate {
            Gate::Held if self.held(Instant::now()).is_some() => return None,
            Gate::Held | Gate::Lifted => {}
        }
        let target = self.target.as_ref()?;
        let to = &target.pointed.to;
        Some((to.clone(), target.address, self.left(to)))
    }

    /// How often the writer has left the server of this region.
    pub fn left(&self, region: &Region) -> u64 {
        self.left.get(region).copied().unwrap_or_default()
    }

    /// The hold, unless it has ended by itself.
    fn held(&self, now: Instant) -> Option<Hold> {
        self.hold.filter(|hold| hold.until > now)
    }
}

/// Whether a hold is for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It waits as all others do.
    Held,
    /// It is the agent's own, which looks whether the way is free.
    Lifted,
}

/// What clients of a port come for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The writer.
    Write,
    /// Any server that answers, the nearest first.
    Read,
}

/// The clients of one port.
#[derive(Debug)]
pub struct Clients {
    /// Who may connect to a server: first in, first out.
    pub turns: Arc<Semaphore>,
    /// How many there may be.
    pub slots: Arc<Semaphore>,
    /// Those that wait.
    pub waiting: AtomicU32,
    /// Those that are connected to a server.
    pub open: AtomicU32,
}

impl Clients {
    fn at_most(slots: usize) -> Clients {
        Clients {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            slots: Arc::new(Semaphore::new(slots)),
            waiting: AtomicU32::new(0),
            open: AtomicU32::new(0),
        }
    }
}

/// What all connections of a route share.
#[derive(Debug)]
pub struct Shared {
    standing: watch::Sender<Standing>,
    /// Until when answers may be passed on.
    pub lease: Lease,
    file: PathBuf,
    /// For whom the gate is lifted, since when, until they come or all others go on.
    admitted: Mutex<VecDeque<(SocketAddr, Instant)>>,
    /// One writer of the file at a time.
    writing: Mutex<()>,
    /// Where the nodes are, that of the own region first.
    pub near_first: Vec<(Region, SocketAddr)>,
    /// What is led to instead of a region's node.
    pub fronts: BTreeMap<Region, SocketAddr>,
    /// Whether servers are told who the client is.
    pub proxy_protocol: ProxyProtocol,
    write: Clients,
    read: Clients,
}

impl Shared {
    /// As the file says.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn read(way: &Way, slots: usize) -> std::io::Result<Shared> {
        let file = way.route.pointer_file.clone();
        let target = pointer::read_with_address(&file)?;
        let target = target.map(|(pointed, address)| Target { pointed, address });
        let lease = Lease::of(&way.route);
        if let Some(target) = &target {
            lease.points_at(&target.pointed.to);
        }
        let nodes = way.nodes.clone().into_iter();
        let (mut near_first, others): (Vec<_>, Vec<_>) =
            nodes.partition(|(region, _)| *region == way.route.region);
        near_first.extend(others);
        Ok(Shared {
            standing: watch::Sender::new(Standing { hold: None, target, left: BTreeMap::new() }),
            lease,
            file,
            admitted: Mutex::default(),
            writing: Mutex::new(()),
            near_first,
            fronts: way.route.fronts.clone(),
            proxy_protocol: way.route.proxy_protocol,
            write: Clients::at_most(slots),
            read: Clients::at_most(slots),
        })
    }

    /// Those of a port.
    pub fn clients(&self, port: Port) -> &Clients {
        match port {
            Port::Write => &self.write,
            Port::Read => &self.read,
        }
    }

    /// To be told of every change.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// How it is.
    pub fn state(&self) -> RouterState {
        let now = Instant::now();
        let standing = self.standing.borrow();
        let hold = standing.held(now);
        let target = standing.target.as_ref();
        RouterState {
            held_ms: hold.map(|hold| (now - hold.began).as_millis() as u64),
            address: target.map(|target| target.address),
            to: target.map(|target| target.pointed.to.clone()),
            epoch: target.map(|target| target.pointed.epoch),
            stamp_us: now_us(),
            open: self.write.open.load(Ordering::Relaxed),
            waiting: self.write.waiting.load(Ordering::Relaxed),
            reading: self.read.open.load(Ordering::Relaxed),
        }
    }

    /// New connections wait. Where they do already, the time begins anew.
    pub fn hold(&self, lasting: Duration) {
        // Whoever was let pass in an earlier one.
        self.admitted().clear();
        let now = Instant::now();
        self.standing.send_modify(|standing| {
            let began = standing.held(now).map_or(now, |hold| hold.began);
            standing.hold = Some(Hold { began, until: now + lasting.min(LONGEST_HOLD) });
        });
    }

    /// The next connection from there is not held.
    pub fn admit(&self, from: SocketAddr) {
        let mut admitted = self.admitted();
        admitted.truncate(ADMITTED_MOST - 1);
        admitted.push_front((from, Instant::now()));
    }

    /// Whether a client from there, who has come to the write port, waits as the others do.
    pub fn gate(&self, from: SocketAddr) -> Gate {
        let mut admitted = self.admitted();
        let now = Instant::now();
        admitted.retain(|(_, since)| now - *since < ADMITTED_FOR);
        match admitted.iter().position(|(one, _)| *one == from) {
            Some(at) => {
                admitted.remove(at);
                Gate::Lifted
            }
            None => Gate::Held,
        }
    }

    fn admitted(&self) -> MutexGuard<'_, VecDeque<(SocketAddr, Instant)>> {
        // A panic while holding it leaves nothing half done.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They go on.
    pub fn release(&self) {
        self.admitted().clear();
        self.standing.send_modify(|standing| standing.hold = None);
    }

    /// Point at the writer of an epoch; refused by an older one. It is done when it is durable, but
    /// obeyed before: a disk that is slow or full must not keep clients at the old side.
    pub fn point(&self, epoch: Epoch, to: Region, address: SocketAddr) -> Answer {
        // A panic while holding it leaves nothing half done.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = Target { pointed: Pointed { epoch, to }, address };
        let mut older = None;
        self.standing.send_if_modified(|standing| {
            match &standing.target {
                Some(Target { pointed, .. })
                    if pointed.epoch > epoch
                        || pointed.epoch == epoch && pointed.to != wanted.pointed.to =>
                {
                    older = Some(pointed.clone());
                    return false;
                }
                Some(target) if target.address != address => {
                    *standing.left.entry(target.pointed.to.clone()).or_default() += 1;
                }
                Some(_) | None => {}
            }
            self.lease.points_at(&wanted.pointed.to);
            let different = standing.target.as_ref() != Some(&wanted);
            standing.target = Some(wanted.clone());
            different
        });
        if let Some(pointed) = older {
            return Answer::Refused {
                sentence: format!(
                    "the route points at {} by epoch {}, the order says {} by epoch {epoch}",
                    pointed.to, pointed.epoch, wanted.pointed.to
                ),
            };
        }
        // What the file says is looked at, not what was meant to be written: an earlier try may have
        // failed.
        let kept = pointer::read_with_address(&self.file);
        if !kept.is_ok_and(|kept| kept == Some((wanted.pointed.clone(), address))) {
            let text = pointer::plain_text(&wanted.pointed, address);
            if let Err(error) = pointer::replace(&self.file, &text) {
                return Answer::Failed { why: format!("{}: {error}", self.file.display()) };
            }
        }
        Answer::State(self.state())
    }
}
