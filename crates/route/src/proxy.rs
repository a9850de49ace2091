//! The built-in router as a route: told over its Unix socket. It holds connections as they are made;
//! those that are open go on until it is pointed elsewhere, and are cut then. Its hold ends by
//! itself, in its own process.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::route::{RouteOrder, RouteView};
use tier0_core::words::{Epoch, Region};

use crate::awaited::Awaited;
use crate::control::{Answer, Ask, RouterState, ask, socket};
use crate::scout::{Bound, Scout};
use crate::{Attempt, RouteSettings, failed, left, refused, unknown};

/// How long a look may take.
const LOOK: Duration = Duration::from_millis(500);

/// One route of a router.
#[derive(Debug)]
pub struct Proxy {
    settings: RouteSettings,
    /// What the router's clock said last.
    stamp: AtomicU64,
    awaited: Awaited,
    /// One order at a time.
    turn: tokio::sync::Mutex<Move>,
}

/// What is known of a move while it lasts.
#[derive(Debug, Default)]
struct Move {
    /// For how long clients were held who were let go on before the order for it came.
    went_on: Option<u64>,
    /// The client of which a statement must come back.
    scout: Option<Scout>,
}

impl Proxy {
    /// The adapter; touches nothing.
    pub fn new(settings: RouteSettings) -> Self {
        Proxy {
            settings,
            stamp: AtomicU64::new(0),
            awaited: Awaited::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// What it knows.
    pub fn settings(&self) -> &RouteSettings {
        &self.settings
    }

    /// Look at it once.
    pub async fn observe(&self) -> RouteView {
        let socket = socket(&self.settings.route);
        let mut view = RouteView {
            process: ProcessState::Running,
            held: false,
            to: None,
            epoch: None,
            active: 0,
            waiting: 0,
            error: None,
        };
        match ask(&socket, &Ask::Look, LOOK).await {
            Ok(Answer::State(state)) => {
                view.held = state.held_ms.is_some();
                view.to = state.to;
                view.epoch = state.epoch;
                view.active = state.open;
                view.waiting = state.waiting;
            }
            Ok(other) => view.error = Some(format!("{other:?}")),
            Err(error) => {
                view.process = match error.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => ProcessState::Stopped,
                    ErrorKind::TimedOut => ProcessState::Silent,
                    _ => ProcessState::Starting,
                };
                view.error = Some(error.to_string());
            }
        }
        view
    }

    /// Carry out an order.
    pub async fn perform(&self, order: &Order, limit: Duration) -> Outcome {
        let Order::Route { order } = order else {
            return refused("wrong-kind", "this is a route");
        };
        let deadline = Instant::now() + limit;
        let mut now = self.turn.lock().await;
        self.awaited.forget();
        let performed = match order {
            RouteOrder::Hold { hold_ms, .. } => {
                *now = Move::default();
                self.awaited.held(Instant::now() + Duration::from_millis(*hold_ms));
                self.hold(*hold_ms, deadline).await
            }
            RouteOrder::Switch { epoch, to } => {
                let pointed = self.point(*epoch, to, deadline).await;
                if let (Ok(_), Some(server)) = (&pointed, self.settings.nodes.get(to)) {
                    self.awaited.expect(*server);
                    if let Some(until) = self.awaited.held_until() {
                        now.scout = self.send_ahead((*epoch, to.clone()), until).await;
                    }
                }
                pointed.map(|_| Fact::Nothing)
            }
            RouteOrder::Release { epoch, to } => {
                self.release(*epoch, to, std::mem::take(&mut *now), deadline).await
            }
        };
        match performed {
            Ok(fact) => Outcome::Done { fact },
            Err(outcome) => outcome,
        }
    }

    /// For ever: let clients go on as soon as the server takes writes that the route was switched to.
    pub async fn keep_watch(&self) {
        loop {
            let server = self.awaited.writes(&self.settings.client).await;
            let mut now = self.turn.lock().await;
            let deadline = Instant::now() + LOOK;
            let held = self.tell(&Ask::Look, deadline).await.ok().and_then(|state| state.held_ms);
            // The order for it comes, whatever goes wrong here.
            if self.awaited.is_still(server)
                && held.is_some()
                && self.tell(&Ask::Release, deadline).await.is_ok()
            {
                now.went_on = held;
            }
        }
    }

    /// Point at the writer that an orchestrator named only just now, unless it does by this epoch
    /// or a newer one: it or this agent may have been away when it was switched, or the server may
    /// have another address by now. What is open to another server is cut.
    pub async fn keep_pointed(&self, writer: &Region, epoch: Epoch) {
        let Ok(state) = self.tell(&Ask::Look, Instant::now() + LOOK).await else { return };
        let behind = match state.epoch {
            None => true,
            Some(known) if known == epoch => {
                state.to.as_ref() == Some(writer)
                    && state.address != self.settings.nodes.get(writer).copied()
            }
            Some(known) => known < epoch,
        };
        if !behind || state.held_ms.is_some() {
            return;
        }
        let route = self.settings.route.id();
        match self.point(epoch, writer, Instant::now() + LOOK).await {
            Ok(_) => {
                tracing::warn!(%route, %writer, %epoch, "the route was behind: it points there")
            }
            Err(outcome) => tracing::warn!(%route, %writer, %outcome, "the route is behind"),
        }
    }

    /// Tell the router for how long it may pass on what servers of its own region answer. It counts
    /// from a moment that it named earlier, so that no word that is late makes a lease longer.
    pub async fn lease(&self, lasting: Duration) {
        let stamp_us = self.stamp.load(Ordering::Relaxed);
        let what = match stamp_us {
            0 => Ask::Look,
            _ => Ask::Lease { stamp_us, lasting_ms: lasting.as_millis() as u64 },
        };
        // One that is down has no sessions that wait for it; every look says so.
        if let Ok(state) = self.tell(&what, Instant::now() + lasting.min(LOOK)).await {
            self.stamp.store(state.stamp_us, Ordering::Relaxed);
        }
    }

    async fn hold(&self, hold_ms: u64, deadline: Instant) -> Attempt<Fact> {
        let state = self.tell(&Ask::Hold { hold_ms }, deadline).await?;
        let open = match state.open {
            0 => Vec::new(),
            open => vec![format!("{open} connections, which are cut when the writer has moved")],
        };
        Ok(Fact::Held { open, waiting: state.waiting })
    }

    async fn point(&self, epoch: Epoch, to: &Region, deadline: Instant) -> Attempt<RouterState> {
        let Some(address) = self.settings.nodes.get(to).copied() else {
            return Err(failed(format!("the datastore has no node in {to}")));
        };
        self.tell(&Ask::Point { epoch, to: to.clone(), address }, deadline).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        to: &Region,
        now: Move,
        deadline: Instant,
    ) -> Attempt<Fact> {
        self.point(epoch, to, deadline).await?;
        let held = self.tell(&Ask::Look, deadline).await?.held_ms.or(now.went_on);
        if self.tell(&Ask::Release, deadline).await?.held_ms.is_some() {
            return Err(failed("the router does not let clients go on"));
        }
        self.awaited.over();
        let mut along = match now.scout {
            Some(scout) => scout.session(&(epoch, to.clone()), left(deadline)).await,
            None => None,
        };
        let route = self.settings.route.address;
        self.settings.client.confirm_along(&mut along, route, deadline).await?;
        Ok(Fact::Released { held_ms: held.unwrap_or_default() })
    }

    /// A client for the statement that must come back, which does not wait with those that are held. If
    /// there is none, one of its own is begun when they go on.
    async fn send_ahead(&self, of: (Epoch, Region), until: Instant) -> Option<Scout> {
        let route = self.settings.route.address;
        let login = self.settings.client.login(route)?;
        let bound = Bound::to(route).ok()?;
        self.tell(&Ask::Admit { from: bound.from }, Instant::now() + LOOK).await.ok()?;
        Some(Scout::send(login, bound, of, until))
    }

    async fn tell(&self, what: &Ask, deadline: Instant) -> Attempt<RouterState> {
        let socket = socket(&self.settings.route);
        match ask(&socket, what, left(deadline)).await {
            Ok(Answer::State(state)) => Ok(state),
            Ok(Answer::Refused { sentence }) => Err(refused("old-epoch", sentence)),
            Ok(Answer::Failed { why }) => Err(failed(why)),
            Err(error) => {
                let why = format!("{}: {error}", socket.display());
                Err(match error.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => failed(why),
                    _ => unknown(why),
                })
            }
        }
    }
}
