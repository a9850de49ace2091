//! One node: its newest view, and the one command that may be under way.
//!
//! A newer command ends an older one that still runs; every effect is safe to repeat, so being
//! cut short leaves nothing that the newer one cannot deal with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tier0_core::lease::Server;
use tier0_core::observe::{
    LastCommand, NodeReport, NodeView, PostgresRole, ProcessState, RedisRole,
};
use tier0_core::order::{Command, Order, Outcome};
use tier0_core::words::{Epoch, NodeId, Region, Stamp};
use tier0_redis::FENCED;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::adapter::Adapter;

/// How often a server is looked at when nothing is going on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often a route is told of the lease.
const LEASE_EVERY: Duration = Duration::from_millis(50);

/// How often a writer's extra duties are done.
const WRITER_EVERY: Duration = Duration::from_secs(1);

/// One node.
pub struct Node {
    /// Which.
    pub id: NodeId,
    adapter: Arc<Adapter>,
    view: Mutex<Option<(NodeView, Instant)>>,
    writes: Mutex<Server>,
    running: Mutex<Option<Running>>,
    look_now: Notify,
}

/// A command under way.
#[derive(Clone)]
struct Running {
    stamp: Stamp,
    order: Order,
    abort: AbortHandle,
    progress: Arc<Mutex<Option<String>>>,
    ended: watch::Receiver<Option<Outcome>>,
}

/// What waiting for a command came to.
pub enum Waited {
    /// It ended.
    Ended(Outcome),
    /// It is still under way.
    Running(Option<String>),
}

impl Node {
    /// A node that has not been looked at.
    pub fn new(id: NodeId, adapter: Adapter) -> Self {
        Node {
            id,
            adapter: Arc::new(adapter),
            view: Mutex::new(None),
            writes: Mutex::new(Server::Other),
            running: Mutex::new(None),
            look_now: Notify::new(),
        }
    }

    /// Look at the server again and again; `changed` is called when something other than a
    /// position is different.
    pub async fn watch(&self, changed: impl Fn() + Send) {
        let mut known: Option<NodeView> = None;
        // Kept over the looks: a server that ends during one would not be there to be waited for.
        let mut exit = Box::pin(self.adapter.wait_for_exit());
        loop {
            let view = self.adapter.observe().await;
            let outline = outline(&view);
            if let Some(writes) = writes(&view) {
                *lock(&self.writes) = writes;
            }
            *lock(&self.view) = Some((view, Instant::now()));
            if known.as_ref() != Some(&outline) {
                known = Some(outline);
                changed();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.look_now.notified() => {}
                () = &mut exit => {
                    exit = Box::pin(self.adapter.wait_for_exit());
                    tracing::warn!(node = %self.id, "the server has ended");
                    // Whatever ends twice a millisecond must not keep a core busy.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// See again and again whether the server still does what it is there for.
    pub async fn keep_probing(&self) {
        self.adapter.keep_probing().await;
    }

    /// Whether its server takes writes, as the newest look saw that could tell: one that has fallen
    /// silent, or is held, is what it was.
    pub fn writes(&self) -> Server {
        *lock(&self.writes)
    }

    /// Whether its server is just being stopped or made a standby: that must not be cut short, and
    /// what its process is meanwhile, nobody knows.
    pub fn is_being_ended(&self) -> bool {
        lock(&self.running).as_ref().is_some_and(|running| {
            matches!(
                running.order,
                Order::PostgresStop | Order::PostgresFollow { .. } | Order::RedisFollow { .. }
            )
        })
    }

    /// Let no byte out of the server, nor in, until it is released.
    pub fn hold(&self) -> std::io::Result<()> {
        self.adapter.hold()
    }

    /// Let the held server go on.
    pub fn release(&self) -> std::io::Result<()> {
        self.adapter.release()
    }

    /// End the held server without letting it go on.
    pub fn end_held(&self) -> std::io::Result<()> {
        self.adapter.end_held()
    }

    /// Whether an earlier agent was killed while it ended the server, and left it half ended.
    pub fn is_left_ending(&self) -> std::io::Result<bool> {
        self.adapter.is_left_ending()
    }

    /// Somebody sees to what was left.
    pub fn forget_ending(&self) -> std::io::Result<()> {
        self.adapter.forget_ending()
    }

    /// Look at the server at once.
    pub fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Do what only the writer's node needs, until cancelled.
    pub async fn keep_as_writer(&self, is_writer: impl Fn() -> bool + Send) {
        loop {
            tokio::time::sleep(WRITER_EVERY).await;
            let idle = lock(&self.running).is_none();
            if idle && is_writer() {
                self.adapter.keep_as_writer(&self.id).await;
            }
        }
    }

    /// Keep a route pointed at the writer that was named only just now, until cancelled. While a
    /// command is under way, that says where to point.
    pub async fn keep_pointed(&self, named: impl Fn() -> Option<(Region, Epoch)> + Send) {
        if !matches!(*self.adapter, Adapter::Route(_)) {
            return;
        }
        loop {
            tokio::time::sleep(WRITER_EVERY).await;
            let idle = lock(&self.running).is_none();
            if let Some((writer, epoch)) = named().filter(|_| idle) {
                self.adapter.keep_pointed(&writer, epoch).await;
            }
        }
    }

    /// Keep a route told for how long it may pass answers on, until cancelled.
    pub async fn keep_leased(&self, left: impl Fn() -> Option<Duration> + Send) {
        if !self.adapter.is_leased() {
            return;
        }
        loop {
            if let Some(left) = left() {
                self.adapter.lease(left).await;
            }
            tokio::time::sleep(LEASE_EVERY).await;
        }
    }

    /// The node's part of a report.
    pub fn report(
        &self,
        last: Option<(Stamp, tier0_core::steps::Step, Option<Outcome>)>,
    ) -> Option<NodeReport> {
        let (view, seen) = lock(&self.view).clone()?;
        let progress =
            lock(&self.running).as_ref().and_then(|running| lock(&running.progress).clone());
        let last = last.map(|(stamp, step, outcome)| LastCommand {
            stamp,
            step,
            progress: outcome.is_none().then_some(progress).flatten(),
            outcome,
        });
        Some(NodeReport { age_ms: seen.elapsed().as_millis() as u64, view, last })
    }

    /// Whether this very command is under way.
    pub fn is_running(&self, stamp: &Stamp) -> bool {
        lock(&self.running).as_ref().is_some_and(|running| running.stamp == *stamp)
    }

    /// Begin a command after `delay`, ending an older one. `performed` runs before anybody hears of
    /// the outcome, `kept` after.
    pub fn begin<P, PF, K, KF>(
        self: &Arc<Self>,
        command: Command,
        delay: Duration,
        performed: P,
        kept: K,
    ) where
        P: FnOnce(Outcome) -> PF + Send + 'static,
        PF: Future<Output = Outcome> + Send,
        K: FnOnce(Outcome) -> KF + Send + 'static,
        KF: Future<Output = ()> + Send,
    {
        let (tell, heard) = watch::channel(None);
        let progress = Arc::new(Mutex::new(None));
        let node = Arc::clone(self);
        let (stamp, order) = (command.stamp.clone(), command.order.clone());
        let told = Arc::clone(&progress);
        let mut slot = lock(&self.running);
        if let Some(older) = slot.take() {
            older.abort.abort();
        }
        let task = tokio::spawn(async move {
            let limit = Duration::from_millis(command.limit_ms);
            let note = move |sentence: String| {
                *lock(&told) = Some(sentence);
            };
            tokio::time::sleep(delay).await;
            let outcome = node.adapter.perform(&command.order, limit, &note).await;
            let outcome = performed(outcome).await;
            node.look_now();
            // Nobody waits any more: that is theirs to decide.
            let _ = tell.send(Some(outcome.clone()));
            kept(outcome).await;
            let mut slot = lock(&node.running);
            if slot.as_ref().is_some_and(|running| running.stamp == command.stamp) {
                *slot = None;
            }
        });
        *slot = Some(Running { stamp, order, abort: task.abort_handle(), progress, ended: heard });
    }

    /// Wait for a command that is under way.
    pub async fn wait(&self, stamp: &Stamp, most: Duration) -> Waited {
        let running = lock(&self.running).clone();
        let Some(mut running) = running.filter(|running| running.stamp == *stamp) else {
            return Waited::Running(None);
        };
        let ended = tokio::time::timeout(most, running.ended.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(outcome)) => match outcome.clone() {
                Some(outcome) => Waited::Ended(outcome),
                None => Waited::Running(None),
            },
            Ok(Err(_)) => {
                Waited::Ended(Outcome::Unknown { why: "a newer command ended it".to_owned() })
            }
            Err(_) => Waited::Running(lock(&running.progress).clone()),
        }
    }
}

/// Whether a server takes writes; `None` where the look cannot tell.
fn writes(view: &NodeView) -> Option<Server> {
    let (process, writes) = match view {
        NodeView::Postgres(view) => {
            (view.process, view.role.map(|role| role == PostgresRole::Primary))
        }
        NodeView::Redis(view) => (view.process, view.role.map(|role| role == RedisRole::Master)),
        NodeView::Route(_) => return Some(Server::Other),
    };
    match process {
        ProcessState::Running => match (writes?, view) {
            (false, _) => Some(Server::Other),
            (true, NodeView::Redis(view)) if view.min_replicas_to_write >= Some(FENCED) => {
                Some(Server::Fenced)
            }
            (true, _) => Some(Server::Writes),
        },
        ProcessState::Stopped | ProcessState::NoData | ProcessState::Unusable => {
            Some(Server::Other)
        }
        ProcessState::Starting | ProcessState::Silent => None,
    }
}

/// The view without what changes all the time.
fn outline(view: &NodeView) -> NodeView {
    let mut view = view.clone();
    match &mut view {
        NodeView::Postgres(view) => {
            view.flushed = None;
            view.replayed = None;
            view.sessions = 0;
            view.open_transactions = 0;
            view.longest_transaction_ms = None;
            view.longest_application = None;
            view.expiring = None;
            view.retained_wal = 0;
            view.archive = None;
            view.disk_free = None;
            if let Some(probe) = &mut view.commits {
                // Whether, not for how long.
                probe.kept_failing_ms = probe.kept_failing_ms.min(1);
                probe.fresh_failing_ms = probe.fresh_failing_ms.min(1);
            }
            for follower in &mut view.followers {
                follower.flushed = None;
                follower.replayed = None;
            }
        }
        NodeView::Redis(view) => {
            view.offset = None;
            view.keys = 0;
            view.used_memory = 0;
            view.disk_free = None;
        }
        NodeView::Route(view) => {
            view.active = 0;
            view.waiting = 0;
        }
    }
    view
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while holding one of these locks leaves plain values behind, which stay usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
