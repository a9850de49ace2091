//! PgBouncer as a route, by its admin console: PAUSE holds, a new line of its database and RELOAD
//! point elsewhere, RESUME releases. With transaction pooling, clients between transactions wait
//! and see no error.
//!
//! What PgBouncer does (measured with 1.18): a PAUSE stays in force when the session that gave it
//! ends, also before it has drained; a transaction that is open goes on where it began, also after
//! RELOAD and RESUME; new ones go where the file points. Not here: session pooling, which PAUSE
//! waits for as long as clients stay.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::route::{RouteOrder, RouteView};
use tier0_core::words::{Epoch, Region};
use tokio_postgres::Config;

use crate::console::{ConsoleError, Row, Session, word};
use crate::held::{self, Held};
use crate::kept::Wanted;
use crate::pointer::{self, pointer_text};
use crate::{Attempt, Client, RouteSettings, failed, left, refused, unknown};

/// How long a look may take.
const LOOK: Duration = Duration::from_millis(500);
/// A PAUSE gets at least this long, so that it has arrived before it is given up to wait for.
const LEAST_DRAIN: Duration = Duration::from_millis(25);
/// How often it is looked at whether a hold has lasted too long.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// How long a hold that could not be ended waits before that is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is looked at whether PgBouncer has read its file again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One PgBouncer.
#[derive(Debug)]
pub struct PgBouncer {
    settings: RouteSettings,
    held: Mutex<Option<Held>>,
    turn: tokio::sync::Mutex<()>,
    looking: tokio::sync::Mutex<Option<Session>>,
}

/// PgBouncer's own word on the database.
#[derive(Debug)]
struct State {
    paused: bool,
    address: Option<SocketAddr>,
    active: u32,
    waiting: u32,
}

impl PgBouncer {
    /// The adapter; touches nothing.
    pub fn new(settings: RouteSettings) -> Self {
        PgBouncer {
            settings,
            held: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
            looking: tokio::sync::Mutex::new(None),
        }
    }

    /// Look at it once.
    pub async fn observe(&self) -> RouteView {
        let pointed = pointer::read(&self.settings.route.pointer_file);
        let (epoch, file_error) = match &pointed {
            Ok(pointed) => (pointed.as_ref().map(|pointed| pointed.epoch), None),
            Err(error) => (None, Some(self.settings.of_pointer(error))),
        };
        let mut view = RouteView {
            process: ProcessState::Running,
            held: false,
            to: None,
            epoch,
            active: 0,
            waiting: 0,
            error: file_error,
        };
        match self.look_with_kept().await {
            Ok(state) => {
                view.held = state.paused;
                view.to = state.address.and_then(|address| self.settings.region_at(address));
                view.active = state.active;
                view.waiting = state.waiting;
            }
            Err(error) => {
                view.process = match error {
                    ConsoleError::Connect(_) => ProcessState::Stopped,
                    ConsoleError::Late(_) => ProcessState::Silent,
                    ConsoleError::Answered(_) | ConsoleError::Lost(_) => ProcessState::Starting,
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
        let performing = async {
            let _turn = self.turn.lock().await;
            match order {
                RouteOrder::Hold { drain_ms, hold_ms } => {
                    let drain = Duration::from_millis(*drain_ms);
                    self.hold(drain, Duration::from_millis(*hold_ms), deadline).await
                }
                RouteOrder::Switch { epoch, to } => {
                    self.switch(*epoch, to, deadline).await.map(|()| Fact::Nothing)
                }
                RouteOrder::Release { epoch, to } => self.release(*epoch, to, deadline).await,
            }
        };
        match tokio::time::timeout(limit, performing).await {
            Ok(Ok(fact)) => Outcome::Done { fact },
            Ok(Err(outcome)) => outcome,
            Err(_) => unknown(format!("it did not end within {} ms", limit.as_millis())),
        }
    }

    /// End holds that last too long, for ever; also those that an earlier run of the agent left.
    pub async fn keep_watch(&self) {
        match held::left(&self.settings.marker()) {
            Ok(Some(left)) => *self.lock_held() = Some(left),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "it is not known whether clients are held"),
        }
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let over = self.lock_held().is_some_and(|held| held.until <= Instant::now());
            if !over {
                continue;
            }
            let _turn = self.turn.lock().await;
            // An order may have come meanwhile.
            let Some(held) = *self.lock_held() else { continue };
            if held.until > Instant::now() {
                continue;
            }
            match self.resume(Instant::now() + LOOK).await {
                Ok(_) => tracing::warn!(
                    route = %self.settings.route.id(),
                    "clients were held for as long as they may be: they go on"
                ),
                Err(outcome) => {
                    tracing::error!(route = %self.settings.route.id(), %outcome, "clients are held");
                    let until = Instant::now() + AGAIN_AFTER;
                    *self.lock_held() = Some(Held { until, ..held });
                }
            }
        }
    }

    /// Point at the writer that an orchestrator named only just now, if it points elsewhere or
    /// nobody has pointed it yet: this agent may have been away when it was switched. Nobody is
    /// held for it.
    pub async fn keep_pointed(&self, writer: &Region, epoch: Epoch) {
        let _turn = self.turn.lock().await;
        let right = match pointer::read(&self.settings.route.pointer_file) {
            Ok(pointed) => pointed.is_some_and(|pointed| {
                pointed.epoch > epoch || pointed.epoch == epoch && pointed.to == *writer
            }),
            // Said by every look.
            Err(_) => true,
        };
        if right || self.lock_held().is_some() {
            return;
        }
        let route = self.settings.route.id();
        match self.switch(epoch, writer, Instant::now() + LOOK).await {
            Ok(()) => {
                tracing::warn!(%route, %writer, %epoch, "the route was behind: it points there")
            }
            Err(outcome) => tracing::warn!(%route, %writer, %outcome, "the route is behind"),
        }
    }

    async fn hold(&self, drain: Duration, lasting: Duration, deadline: Instant) -> Attempt<Fact> {
        // First what ends it: nothing that happens from here on leaves clients held.
        held::note(&self.settings.marker(), lasting)
            .map_err(|error| failed(self.settings.of_marker(&error)))?;
        {
            let now = Instant::now();
            let mut held = self.lock_held();
            let began = held.map_or(now, |held| held.began);
            *held = Some(Held { began, until: now + lasting });
        }
        let session = self.console(deadline).await?;
        let pause = format!("PAUSE {}", word(self.database()));
        match session.rows(&pause, drain.max(LEAST_DRAIN).min(left(deadline))).await {
            // Late: transactions are open. It stays in force without this session.
            Ok(_) | Err(ConsoleError::Late(_)) => {}
            Err(error) => return Err(error.outcome("PAUSE")),
        }
        let looking = self.console(deadline).await?;
        let state =
            self.look(&looking, left(deadline)).await.map_err(|error| error.outcome("look"))?;
        if !state.paused {
            return Err(failed("PgBouncer does not say that the database is paused"));
        }
        let open = if state.active == 0 {
            Vec::new()
        } else {
            self.open(&looking, left(deadline)).await.map_err(|error| error.outcome("look"))?
        };
        Ok(Fact::Held { open, waiting: state.waiting })
    }

    async fn switch(&self, epoch: Epoch, to: &Region, deadline: Instant) -> Attempt<()> {
        let Wanted { pointed, address, is_noted } = self.settings.wanted(epoch, to)?;
        if !is_noted {
            // First of all: a PgBouncer that is down points right when it comes back.
            self.settings.note_pointer(&pointer_text(&pointed, self.database(), address))?;
        }
        let session = self.console(deadline).await?;
        let looked = |state: &State| state.address == Some(address);
        if is_noted {
            let state = self.look(&session, left(deadline)).await;
            if state.is_ok_and(|state| looked(&state)) {
                return Ok(());
            }
        }
        session.rows("RELOAD", left(deadline)).await.map_err(|error| error.outcome("RELOAD"))?;
        loop {
            let state = self.look(&session, left(deadline)).await;
            match state.map_err(|error| error.outcome("look"))? {
                state if looked(&state) => return Ok(()),
                state if left(deadline).is_zero() => {
                    let found = state.address.map_or("nowhere".to_owned(), |at| at.to_string());
                    return Err(failed(format!(
                        "after RELOAD PgBouncer points at {found}, not at {address}: does \
                         pgbouncer.ini include {}?",
                        self.settings.route.pointer_file.display()
                    )));
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn release(&self, epoch: Epoch, to: &Region, deadline: Instant) -> Attempt<Fact> {
        self.switch(epoch, to, deadline).await?;
        let held = self.resume(deadline).await?;
        self.settings.client.confirm(self.settings.route.address, deadline).await?;
        Ok(Fact::Released { held_ms: held.as_millis() as u64 })
    }

    /// Let clients go on, and say for how long they were held.
    async fn resume(&self, deadline: Instant) -> Attempt<Duration> {
        let session = self.console(deadline).await?;
        let resume = format!("RESUME {}", word(self.database()));
        match session.rows(&resume, left(deadline)).await {
            Ok(_) => {}
            // It says so where nothing was paused: what counts is what is.
            Err(ConsoleError::Answered(_)) => {}
            Err(error) => return Err(error.outcome("RESUME")),
        }
        let state = self.look(&session, left(deadline)).await;
        if state.map_err(|error| error.outcome("look"))?.paused {
            return Err(failed("PgBouncer says that the database is still paused"));
        }
        let held = self.lock_held().take();
        held::forget(&self.settings.marker())
            .map_err(|error| failed(self.settings.of_marker(&error)))?;
        Ok(held.map_or(Duration::ZERO, |held| held.began.elapsed()))
    }

    async fn console(&self, deadline: Instant) -> Attempt<Session> {
        let opened = Session::open(&self.console_config(), left(deadline)).await;
        opened.map_err(|error| error.outcome("PgBouncer's console"))
    }

    fn console_config(&self) -> Config {
        let mut config = Config::new();
        config
            .host_path(&self.settings.route.socket_directory)
            .port(self.settings.route.address.port())
            .user(&self.settings.route.admin_user)
            .dbname("pgbouncer");
        config
    }

    /// Look over the session that is kept for it: PgBouncer notes every new one in its log.
    async fn look_with_kept(&self) -> Result<State, ConsoleError> {
        let mut kept = self.looking.lock().await;
        let session = match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.console_config(), LOOK).await?,
        };
        let state = self.look(&session, LOOK).await?;
        *kept = Some(session);
        Ok(state)
    }

    async fn look(&self, session: &Session, limit: Duration) -> Result<State, ConsoleError> {
        let own = |row: &&Row, column: &str| {
            row.get(column).is_some_and(|name| *name == *self.database())
        };
        let databases = session.rows("SHOW DATABASES", limit).await?;
        let database = databases.iter().find(|row| own(row, "name"));
        let field = |name: &str| database.and_then(|row| row.get(name)).map(String::as_str);
        let address = field("host")
            .zip(field("port"))
            .and_then(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?)));
        let pools = session.rows("SHOW POOLS", limit).await?;
        let sum = |column: &str| {
            let pools = pools.iter().filter(|row| own(row, "database"));
            pools.filter_map(|row| row.get(column)?.parse::<u32>().ok()).sum()
        };
        Ok(State {
            paused: field("paused").is_some_and(|paused| paused != "0"),
            address,
            active: sum("sv_active"),
            waiting: sum("cl_waiting"),
        })
    }

    /// The transactions that are open, one sentence each.
    async fn open(&self, session: &Session, limit: Duration) -> Result<Vec<String>, ConsoleError> {
        let servers = session.rows("SHOW SERVERS", limit).await?;
        let field = |row: &Row, name: &str| row.get(name).cloned().unwrap_or_default();
        Ok(servers
            .iter()
            .filter(|row| {
                field(row, "database") == *self.database() && field(row, "state") == "active"
            })
            .map(|row| {
                let application = match field(row, "application_name") {
                    name if name.is_empty() => String::new(),
                    name => format!(", app={name}"),
                };
                format!(
                    "user={}{application}, server process {}, last request {}",
                    field(row, "user"),
                    field(row, "remote_pid"),
                    field(row, "request_time"),
                )
            })
            .collect())
    }

    /// The database whose line the file has.
    fn database(&self) -> &str {
        match &self.settings.client {
            Client::Postgres { database, .. } => database,
            // The configuration refuses a PgBouncer before Redis.
            Client::Redis { .. } => "",
        }
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        // A panic while holding it leaves a plain value behind, which stays usable.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
