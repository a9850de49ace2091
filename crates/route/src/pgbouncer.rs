//! PgBouncer as a route, by its admin console: PAUSE holds, a new line of its database and RELOAD
//! point elsewhere, RESUME releases. With transaction pooling, clients between transactions wait
//! and see no error.
//!
//! What PgBouncer does (measured with 1.18): a PAUSE stays in force when the session that gave it
//! ends, also before it has drained; a transaction that is open goes on where it began, also after
//! RELOAD and RESUME; new ones go where the file points. A login at the server that PAUSE cuts off is
//! taken for a server that fails (1.18: `janitor.c` `per_loop_pause`, `objects.c` `disconnect_server`):
//! none is tried for `server_login_retry`, and who asks meanwhile is turned away. And what waits for that
//! time to be over is looked at only when something happens, at the latest after a third of a second.
//! Not here: session pooling, which PAUSE waits for as long as clients stay.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::route::{RouteOrder, RouteView};
use tier0_core::words::{Epoch, Region};
use tokio_postgres::Config;

use crate::awaited::Awaited;
use crate::confirm::Along;
use crate::console::{ConsoleError, Row, Session, word};
use crate::held::{self, Held};
use crate::kept::Wanted;
use crate::pointer::{self, pointer_text};
use crate::{Attempt, Client, RouteSettings, failed, left, refused, unknown};

/// How long a look may take.
const LOOK: Duration = Duration::from_millis(500);
/// How long a login may take before clients are held, be it of a client here or of the pool at the
/// server; one that is later is done without.
const LOGIN: Duration = Duration::from_millis(25);
/// How much earlier than clients go on the statement is sent that is to come back.
const HEAD_START: Duration = Duration::from_millis(1);
/// How often something happens while clients wait for a server to be logged in at.
const PROD_EVERY: Duration = Duration::from_millis(10);
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
    ordering: tokio::sync::Mutex<Sessions>,
    awaited: Awaited,
    looking: tokio::sync::Mutex<Kept>,
}

/// A session with the console that is kept for the next order or look: opening one takes as long as
/// what is asked over it, while clients wait.
type Kept = Option<Session>;

/// What is kept between orders.
#[derive(Debug, Default)]
struct Sessions {
    console: Kept,
    along: Along,
    /// For how long clients were held who were let go on before the order for it came.
    went_on: Option<Duration>,
}

/// PgBouncer's own word on the database.
#[derive(Debug)]
struct Database {
    paused: bool,
    address: Option<SocketAddr>,
}

/// And on those who use it.
#[derive(Debug)]
struct Users {
    active: u32,
    waiting: u32,
    logins: u32,
}

impl PgBouncer {
    /// The adapter; touches nothing.
    pub fn new(settings: RouteSettings) -> Self {
        PgBouncer {
            settings,
            held: Mutex::new(None),
            ordering: tokio::sync::Mutex::default(),
            awaited: Awaited::default(),
            looking: tokio::sync::Mutex::default(),
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
            Ok((database, users)) => {
                view.held = database.paused;
                view.to = database.address.and_then(|address| self.settings.region_at(address));
                view.active = users.active;
                view.waiting = users.waiting;
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
            let mut kept = self.ordering.lock().await;
            self.awaited.forget();
            match order {
                RouteOrder::Hold { drain_ms, hold_ms } => {
                    let drain = Duration::from_millis(*drain_ms);
                    self.hold(&mut kept, drain, Duration::from_millis(*hold_ms), deadline).await
                }
                RouteOrder::Switch { epoch, to } => {
                    self.switch(&mut kept.console, *epoch, to, deadline).await?;
                    if let Some(server) = self.settings.nodes.get(to) {
                        self.awaited.expect(*server);
                    }
                    Ok(Fact::Nothing)
                }
                RouteOrder::Release { epoch, to } => {
                    self.release(&mut kept, *epoch, to, deadline).await
                }
            }
        };
        match tokio::time::timeout(limit, performing).await {
            Ok(Ok(fact)) => Outcome::Done { fact },
            Ok(Err(outcome)) => outcome,
            Err(_) => unknown(format!("it did not end within {} ms", limit.as_millis())),
        }
    }

    /// For ever: end holds that last too long, also those that an earlier run of the agent left; and let
    /// clients go on as soon as the server takes writes that the route was switched to. The order for
    /// that is on its way meanwhile.
    pub async fn keep_watch(&self) {
        tokio::join!(self.end_long_holds(), self.let_go_on());
    }

    async fn let_go_on(&self) {
        loop {
            let server = self.awaited.writes(&self.settings.client).await;
            let mut kept = self.ordering.lock().await;
            // The hold may have ended.
            if self.awaited.is_still(server) && self.lock_held().is_some() {
                let route = self.settings.route.id();
                match self.resume(&mut kept.console, Instant::now() + LOOK).await {
                    Ok(held) => {
                        tracing::info!(%route, ?held, "the new writer writes: clients go on");
                        kept.went_on = Some(held);
                    }
                    // The order for it comes.
                    Err(outcome) => tracing::warn!(%route, %outcome, "clients are still held"),
                }
            }
        }
    }

    async fn end_long_holds(&self) {
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
            let mut kept = self.ordering.lock().await;
            // An order may have come meanwhile.
            let Some(held) = *self.lock_held() else { continue };
            if held.until > Instant::now() {
                continue;
            }
            match self.resume(&mut kept.console, Instant::now() + LOOK).await {
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
        let mut kept = self.ordering.lock().await;
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
        match self.switch(&mut kept.console, epoch, writer, Instant::now() + LOOK).await {
            Ok(()) => {
                tracing::warn!(%route, %writer, %epoch, "the route was behind: it points there")
            }
            Err(outcome) => tracing::warn!(%route, %writer, %outcome, "the route is behind"),
        }
    }

    async fn hold(
        &self,
        kept: &mut Sessions,
        drain: Duration,
        lasting: Duration,
        deadline: Instant,
    ) -> Attempt<Fact> {
        let look = |error: ConsoleError| error.outcome("look");
        kept.went_on = None;
        let mut session = self.console(&mut kept.console, deadline).await?;
        // With nothing to drain the server is dead, and logins there come to no end.
        if !drain.is_zero() {
            let route = self.settings.route.address;
            let limit = LOGIN.min(left(deadline));
            self.settings.client.come_along(&mut kept.along, route, limit).await;
            let patience = Instant::now() + LOGIN;
            while self.users(&session, left(deadline)).await.map_err(look)?.logins > 0
                && Instant::now() < patience
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // First what ends it: nothing that happens from here on leaves clients held.
        held::note(&self.settings.marker(), lasting)
            .map_err(|error| failed(self.settings.of_marker(&error)))?;
        {
            let now = Instant::now();
            let mut held = self.lock_held();
            let began = held.map_or(now, |held| held.began);
            *held = Some(Held { began, until: now + lasting });
            self.awaited.held(now + lasting);
        }
        let pause = format!("PAUSE {}", word(self.database()));
        match session.rows(&pause, drain.max(LEAST_DRAIN).min(left(deadline))).await {
            Ok(_) => {}
            // Transactions are open. It stays in force without this session, which answers nothing
            // else before they have ended.
            Err(ConsoleError::Late(_)) => session = self.console(&mut None, deadline).await?,
            Err(error) => return Err(error.outcome("PAUSE")),
        }
        if !self.look(&session, left(deadline)).await.map_err(look)?.paused {
            return Err(failed("PgBouncer does not say that the database is paused"));
        }
        let users = self.users(&session, left(deadline)).await.map_err(look)?;
        let open = if users.active == 0 {
            Vec::new()
        } else {
            self.open(&session, left(deadline)).await.map_err(look)?
        };
        kept.console = Some(session);
        Ok(Fact::Held { open, waiting: users.waiting })
    }

    async fn switch(
        &self,
        kept: &mut Kept,
        epoch: Epoch,
        to: &Region,
        deadline: Instant,
    ) -> Attempt<()> {
        let Wanted { pointed, address, is_noted } = self.settings.wanted(epoch, to)?;
        if !is_noted {
            // First of all: a PgBouncer that is down points right when it comes back.
            self.settings.note_pointer(&pointer_text(&pointed, self.database(), address))?;
        }
        let session = self.console(kept, deadline).await?;
        let looked = |database: &Database| database.address == Some(address);
        let is_there = is_noted
            && self.look(&session, left(deadline)).await.is_ok_and(|database| looked(&database));
        if !is_there {
            session
                .rows("RELOAD", left(deadline))
                .await
                .map_err(|error| error.outcome("RELOAD"))?;
            loop {
                let database = self.look(&session, left(deadline)).await;
                match database.map_err(|error| error.outcome("look"))? {
                    database if looked(&database) => break,
                    database if left(deadline).is_zero() => {
                        let found =
                            database.address.map_or("nowhere".to_owned(), |at| at.to_string());
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
        *kept = Some(session);
        Ok(())
    }

    async fn release(
        &self,
        kept: &mut Sessions,
        epoch: Epoch,
        to: &Region,
        deadline: Instant,
    ) -> Attempt<Fact> {
        let Sessions { console, along, went_on } = kept;
        self.switch(console, epoch, to, deadline).await?;
        let route = self.settings.route.address;
        let mut confirming = pin!(self.settings.client.confirm_along(along, route, deadline));
        // It is there before clients go on, and so is not turned away.
        let early = tokio::time::timeout(HEAD_START, &mut confirming).await;
        let resumed = self.resume(console, deadline).await?;
        let held = went_on.take().unwrap_or(resumed);
        let mut confirmed = early;
        let confirmed = loop {
            if let Ok(confirmed) = confirmed {
                break confirmed;
            }
            confirmed = tokio::time::timeout(PROD_EVERY, &mut confirming).await;
            if confirmed.is_err()
                && let Some(session) = console
            {
                // What it answers is of no interest.
                let _ = session.rows("SHOW VERSION", left(deadline)).await;
            }
        };
        confirmed?;
        Ok(Fact::Released { held_ms: held.as_millis() as u64 })
    }

    /// Let clients go on, and say for how long they were held.
    async fn resume(&self, kept: &mut Kept, deadline: Instant) -> Attempt<Duration> {
        let session = self.console(kept, deadline).await?;
        let resume = format!("RESUME {}", word(self.database()));
        match session.rows(&resume, left(deadline)).await {
            Ok(_) => {}
            // It says so where nothing was paused: what counts is what is.
            Err(ConsoleError::Answered(_)) => {}
            Err(error) => return Err(error.outcome("RESUME")),
        }
        let database = self.look(&session, left(deadline)).await;
        if database.map_err(|error| error.outcome("look"))?.paused {
            return Err(failed("PgBouncer says that the database is still paused"));
        }
        *kept = Some(session);
        let held = self.lock_held().take();
        self.awaited.over();
        held::forget(&self.settings.marker())
            .map_err(|error| failed(self.settings.of_marker(&error)))?;
        Ok(held.map_or(Duration::ZERO, |held| held.began.elapsed()))
    }

    /// The session that was kept, or a new one. Whoever takes it puts it back where all went well.
    async fn console(&self, kept: &mut Kept, deadline: Instant) -> Attempt<Session> {
        let session = self.session(kept, left(deadline)).await;
        session.map_err(|error| error.outcome("PgBouncer's console"))
    }

    async fn session(&self, kept: &mut Kept, limit: Duration) -> Result<Session, ConsoleError> {
        match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => Ok(session),
            None => Session::open(&self.console_config(), limit).await,
        }
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
    async fn look_with_kept(&self) -> Result<(Database, Users), ConsoleError> {
        let mut kept = self.looking.lock().await;
        let session = self.session(&mut kept, LOOK).await?;
        let database = self.look(&session, LOOK).await?;
        let users = self.users(&session, LOOK).await?;
        *kept = Some(session);
        Ok((database, users))
    }

    async fn look(&self, session: &Session, limit: Duration) -> Result<Database, ConsoleError> {
        let databases = session.rows("SHOW DATABASES", limit).await?;
        let database = databases.iter().find(|row| self.is_of_database(row, "name"));
        let field = |name: &str| database.and_then(|row| row.get(name)).map(String::as_str);
        let address = field("host")
            .zip(field("port"))
            .and_then(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?)));
        Ok(Database { paused: field("paused").is_some_and(|paused| paused != "0"), address })
    }

    async fn users(&self, session: &Session, limit: Duration) -> Result<Users, ConsoleError> {
        let pools = session.rows("SHOW POOLS", limit).await?;
        let sum = |column: &str| {
            let pools = pools.iter().filter(|row| self.is_of_database(row, "database"));
            pools.filter_map(|row| row.get(column)?.parse::<u32>().ok()).sum()
        };
        Ok(Users { active: sum("sv_active"), waiting: sum("cl_waiting"), logins: sum("sv_login") })
    }

    fn is_of_database(&self, row: &Row, column: &str) -> bool {
        row.get(column).is_some_and(|name| *name == *self.database())
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
