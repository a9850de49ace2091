//! HAProxy as a route, by its runtime socket: one proxy with the route's name, one server in it called
//! `writer`, whose address and state are set. For those who have it already.
//!
//! It holds nobody: with no server that takes connections it turns clients away, and a limit of zero
//! connections, which parks them, makes Debian's 2.6 loop until its own watchdog kills it when the limit
//! is raised again (measured). So open connections are cut by the switch, and new ones end at once
//! until the release. What it was told is gone when it restarts: its file says `disabled`, and the
//! agent points it anew. It has nowhere to keep an epoch either; the agent's file does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::route::{RouteOrder, RouteView};
use tier0_core::words::{Epoch, Region};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::control::socket;
use crate::kept::{Wanted, forbids};
use crate::pointer;
use crate::{Attempt, RouteSettings, failed, held, left, refused, unknown};

/// The server's name in its file.
const SERVER: &str = "writer";
/// How long a look may take.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked at whether an operation that began here has not ended in time.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How long its answer may be.
const ANSWER: u64 = 64 * 1_024;

/// One proxy of a HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    settings: RouteSettings,
    turn: tokio::sync::Mutex<()>,
}

/// HAProxy's own word on the server.
#[derive(Debug, PartialEq, Eq)]
struct State {
    address: SocketAddr,
    /// It gets connections.
    ready: bool,
    active: u32,
}

impl Haproxy {
    /// The adapter; touches nothing.
    pub fn new(settings: RouteSettings) -> Self {
        Haproxy { settings, turn: tokio::sync::Mutex::new(()) }
    }

    /// Look at it once.
    pub async fn observe(&self) -> RouteView {
        let (epoch, error) = match pointer::read(&self.settings.route.pointer_file) {
            Ok(pointed) => (pointed.map(|pointed| pointed.epoch), None),
            Err(error) => (None, Some(self.settings.of_pointer(&error))),
        };
        let mut view = RouteView {
            process: ProcessState::Running,
            held: false,
            to: None,
            epoch,
            active: 0,
            waiting: 0,
            error,
        };
        match self.look(Instant::now() + LOOK).await {
            Ok(state) => {
                view.to = self.settings.region_at(state.address);
                view.active = state.active;
                if !state.ready {
                    view.error =
                        Some("it turns clients away until it is told otherwise".to_owned());
                }
            }
            Err(outcome) => {
                view.process = match outcome {
                    Outcome::Unknown { .. } => ProcessState::Silent,
                    _ => ProcessState::Stopped,
                };
                view.error = Some(outcome.to_string());
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
        let _turn = self.turn.lock().await;
        let performed = match order {
            RouteOrder::Hold { hold_ms, .. } => {
                self.begin(Duration::from_millis(*hold_ms), deadline).await
            }
            RouteOrder::Switch { epoch, to } => {
                self.switch(*epoch, to, deadline).await.map(|_| Fact::Nothing)
            }
            RouteOrder::Release { epoch, to } => self.release(*epoch, to, deadline).await,
        };
        match performed {
            Ok(fact) => Outcome::Done { fact },
            Err(outcome) => outcome,
        }
    }

    /// Let clients in where an operation has not ended in time, for ever; also one that an earlier run
    /// of the agent began.
    pub async fn keep_watch(&self) {
        let route = self.settings.route.id();
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let over = || {
                let left = held::left(&self.settings.marker());
                left.is_ok_and(|left| left.is_some_and(|held| held.until <= Instant::now()))
            };
            if !over() {
                continue;
            }
            let _turn = self.turn.lock().await;
            // An order may have come meanwhile.
            if !over() {
                continue;
            }
            match self.open(Instant::now() + LOOK).await {
                Ok(()) => tracing::warn!(%route, "nobody ended the operation: clients are let in"),
                Err(outcome) => tracing::error!(%route, %outcome, "clients are turned away"),
            }
        }
    }

    /// Point at the writer that an orchestrator named only just now, where it is behind or was
    /// restarted. Not within an operation, whose release comes.
    pub async fn keep_pointed(&self, writer: &Region, epoch: Epoch) {
        let _turn = self.turn.lock().await;
        // Damage is said by every look.
        let Ok(pointed) = pointer::read(&self.settings.route.pointer_file) else { return };
        let forbidden = pointed.as_ref().is_some_and(|known| forbids(known, epoch, writer));
        if forbidden || self.settings.marker().exists() {
            return;
        }
        let is_noted = pointed.is_some_and(|known| known.epoch == epoch);
        let deadline = Instant::now() + LOOK;
        let right =
            |state: &State| state.ready && self.settings.nodes.get(writer) == Some(&state.address);
        match self.look(deadline).await {
            Ok(state) if right(&state) && is_noted => return,
            Ok(_) => {}
            // Said by every look.
            Err(_) => return,
        }
        let route = self.settings.route.id();
        let pointed = match self.switch(epoch, writer, deadline).await {
            Ok(()) => self.open(deadline).await,
            Err(outcome) => Err(outcome),
        };
        match pointed {
            Ok(()) => {
                tracing::warn!(%route, %writer, %epoch, "the route was behind: it points there")
            }
            Err(outcome) => tracing::warn!(%route, %writer, %outcome, "the route is behind"),
        }
    }

    /// Nothing is held; what is noted is until when the release must have come.
    async fn begin(&self, lasting: Duration, deadline: Instant) -> Attempt<Fact> {
        let state = self.look(deadline).await?;
        held::note(&self.settings.marker(), lasting)
            .map_err(|error| failed(self.settings.of_marker(&error)))?;
        let open = match state.active {
            0 => Vec::new(),
            open => vec![format!("{open} connections, which are cut when the writer has moved")],
        };
        Ok(Fact::Held { open, waiting: 0 })
    }

    async fn switch(&self, epoch: Epoch, to: &Region, deadline: Instant) -> Attempt<()> {
        let Wanted { pointed, address, is_noted } = self.settings.wanted(epoch, to)?;
        if !is_noted {
            // First of all: one that is down is pointed right when it comes back.
            self.settings.note_pointer(&pointer::plain_text(&pointed, address))?;
        }
        if self.look(deadline).await?.address == address {
            return Ok(());
        }
        let server = self.server();
        // In this order: nobody comes to either server while the address changes, and nobody stays.
        let commands = format!(
            "set server {server} state maint; set server {server} addr {} port {}; \
             shutdown sessions server {server}",
            address.ip(),
            address.port()
        );
        let said = self.say(&commands, deadline).await?;
        match self.look(deadline).await? {
            state if state.address == address => Ok(()),
            state => {
                let at = state.address;
                Err(failed(format!("HAProxy points at {at}, not at {address}: {}", said.trim())))
            }
        }
    }

    async fn release(&self, epoch: Epoch, to: &Region, deadline: Instant) -> Attempt<Fact> {
        self.switch(epoch, to, deadline).await?;
        self.open(deadline).await?;
        self.settings.client.confirm(self.settings.route.address, deadline).await?;
        Ok(Fact::Released { held_ms: 0 })
    }

    /// Let clients in.
    async fn open(&self, deadline: Instant) -> Attempt<()> {
        let ready = format!("set server {} state ready", self.server());
        let said = self.say(&ready, deadline).await?;
        if !self.look(deadline).await?.ready {
            return Err(failed(format!("HAProxy still turns clients away: {}", said.trim())));
        }
        held::forget(&self.settings.marker())
            .map_err(|error| failed(self.settings.of_marker(&error)))
    }

    async fn look(&self, deadline: Instant) -> Attempt<State> {
        let name = &self.settings.route.name;
        // 4 is for servers, -1 for all of them.
        let asked = format!("show servers state {name}; show stat {name} 4 -1");
        let said = self.say(&asked, deadline).await?;
        State::read(&said).ok_or_else(|| {
            let first = said.lines().next().unwrap_or_default();
            failed(format!("HAProxy has no server '{}': {first}", self.server()))
        })
    }

    async fn say(&self, commands: &str, deadline: Instant) -> Attempt<String> {
        let path = socket(&self.settings.route);
        let asking = async {
            let mut stream = UnixStream::connect(&path)
                .await
                .map_err(|error| failed(format!("{}: {error}", path.display())))?;
            let mut said = String::new();
            let talking = async {
                stream.write_all(format!("{commands}\n").as_bytes()).await?;
                stream.take(ANSWER).read_to_string(&mut said).await
            };
            // It may have done it before it went.
            talking.await.map_err(|error| unknown(format!("{}: {error}", path.display())))?;
            Ok(said)
        };
        let limit = left(deadline);
        let late = |_| unknown(format!("no answer within {} ms", limit.as_millis()));
        tokio::time::timeout(limit, asking).await.map_err(late)?
    }

    fn server(&self) -> String {
        format!("{}/{SERVER}", self.settings.route.name)
    }
}

impl State {
    /// From two tables, one after the other: the columns have names, which later versions add to.
    fn read(said: &str) -> Option<State> {
        let (head, mut lines) = table(said, "# be_id ")?;
        let row = lines.find(|line| line.split(' ').nth(3) == Some(SERVER))?;
        let field = |name: &str| {
            let at = head.split(' ').position(|column| column == name)?;
            row.split(' ').nth(at)
        };
        let (head, mut lines) = table(said, "# pxname,")?;
        let counts = lines.find(|line| line.split(',').nth(1) == Some(SERVER))?;
        let at = head.split(',').position(|column| column == "scur")?;
        Some(State {
            address: SocketAddr::new(
                field("srv_addr")?.parse().ok()?,
                field("srv_port")?.parse().ok()?,
            ),
            // Starting slowly, or running. The other column also remembers that its file disabled it.
            ready: matches!(field("srv_op_state")?, "1" | "2"),
            active: counts.split(',').nth(at)?.parse().ok()?,
        })
    }
}

/// A table's first line, which names its columns, and what follows it.
fn table<'a>(said: &'a str, mark: &'a str) -> Option<(&'a str, impl Iterator<Item = &'a str>)> {
    let mut lines = said.lines().skip_while(move |line| !line.starts_with(mark));
    let head = lines.next()?.trim_start_matches("# ");
    Some((head, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_haproxy_says_is_read_by_the_names_of_its_columns() {
        let said = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_port\n\
                    3 pool 1 writer 10.0.1.10 0 1 5432\n\n\
                    # pxname,svname,qcur,qmax,scur,smax\npool,writer,0,0,7,9\n\n";
        let address = "10.0.1.10:5432".parse().ok();
        let state = State::read(said);
        assert_eq!(state.as_ref().map(|state| state.address), address);
        assert_eq!(state.map(|state| (state.ready, state.active)), Some((false, 7)));
        assert_eq!(State::read("Can't find backend.\n\n"), None);
    }
}
