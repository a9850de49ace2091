//! Where a route points, and whether it holds: one value that every connection watches.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tier0_config::RouteSettings;
use tier0_core::words::{Epoch, Region};
use tier0_route::control::{Answer, RouterState};
use tier0_route::{Pointed, pointer};
use tokio::sync::{Semaphore, watch};

use crate::lease::{Lease, now_us};

/// How many connections to the server are made at once. Those that waited come in this order, not
/// all together, onto a server that is cold.
const AT_ONCE: usize = 64;
/// A hold may not last longer than this, whatever is asked for.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// How a route is at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    hold: Option<Hold>,
    target: Option<Target>,
    /// How often it was pointed elsewhere: a connection of an earlier time is not one of now, also
    /// where the address is the same again.
    pub moves: u64,
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
    /// Where a new connection goes now; `None` while it has to wait.
    pub fn open(&self) -> Option<(Region, SocketAddr)> {
        if self.held(Instant::now()).is_some() {
            return None;
        }
        self.target.as_ref().map(|target| (target.pointed.to.clone(), target.address))
    }

    /// The hold, unless it has ended by itself.
    fn held(&self, now: Instant) -> Option<Hold> {
        self.hold.filter(|hold| hold.until > now)
    }
}

/// What all connections of a route share.
#[derive(Debug)]
pub struct Shared {
    standing: watch::Sender<Standing>,
    /// Until when answers may be passed on.
    pub lease: Lease,
    file: PathBuf,
    /// One writer of the file at a time.
    writing: Mutex<()>,
    /// Who may connect to the server: first in, first out.
    pub turns: Arc<Semaphore>,
    /// How many clients there may be.
    pub slots: Arc<Semaphore>,
    /// Connections that wait.
    pub waiting: AtomicU32,
    /// Connections that are open to a server.
    pub open: AtomicU32,
}

impl Shared {
    /// As the file says.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn read(route: &RouteSettings, slots: usize) -> std::io::Result<Shared> {
        let file = route.pointer_file.clone();
        let target = pointer::read_with_address(&file)?;
        let target = target.map(|(pointed, address)| Target { pointed, address });
        Ok(Shared {
            standing: watch::Sender::new(Standing { hold: None, target, moves: 0 }),
            lease: Lease::of(route),
            file,
            writing: Mutex::new(()),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            slots: Arc::new(Semaphore::new(slots)),
            waiting: AtomicU32::new(0),
            open: AtomicU32::new(0),
        })
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
            open: self.open.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// New connections wait. Where they do already, the time begins anew.
    pub fn hold(&self, lasting: Duration) {
        let now = Instant::now();
        self.standing.send_modify(|standing| {
            let began = standing.held(now).map_or(now, |hold| hold.began);
            standing.hold = Some(Hold { began, until: now + lasting.min(LONGEST_HOLD) });
        });
    }

    /// They go on.
    pub fn release(&self) {
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
            let moves = match &standing.target {
                Some(Target { pointed, .. })
                    if pointed.epoch > epoch
                        || pointed.epoch == epoch && pointed.to != wanted.pointed.to =>
                {
                    older = Some(pointed.clone());
                    return false;
                }
                Some(target) => target.address != address,
                None => true,
            };
            standing.moves += u64::from(moves);
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
