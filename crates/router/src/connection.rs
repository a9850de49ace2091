//! One client's connection: it waits its turn, gets one to a server, and then bytes go both ways until
//! one side ends it or the writer has left that server.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use tier0_config::ProxyProtocol;
use tokio::net::TcpStream;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::carry::{both_ways, say};
use crate::header;
use crate::lease::Passage;
use crate::socket::{cut, has_ended, tune};
use crate::state::{Clients, Gate, Port, Shared};

/// How long a client may wait for a server, held or not.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to take a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long it is until a server that took none is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked at whether a client that waits is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Counts for as long as it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in the line of a port, had from the moment when a connection was accepted: who
/// came first is first, whichever thread serves it.
pub struct Place(MaybeDone<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>);

impl Place {
    /// The last one.
    pub fn take(clients: &Clients) -> Place {
        let mut turn = maybe_done(Arc::clone(&clients.turns).acquire_owned().boxed());
        // Asking once is what puts it in line.
        let _ = (&mut turn).now_or_never();
        Place(turn)
    }

    /// Wait until it is the first.
    async fn turn(mut self) -> Option<OwnedSemaphorePermit> {
        (&mut self.0).await;
        Pin::new(&mut self.0).take_output()?.ok()
    }
}

/// Serve a client of a port from its accepted connection to its end.
pub async fn serve(
    shared: Arc<Shared>,
    port: Port,
    client: std::net::TcpStream,
    place: Place,
    _slot: OwnedSemaphorePermit,
) {
    let Ok(client) = TcpStream::from_std(client) else { return };
    if tune(&client).is_err() {
        return;
    }
    let Some(Reached { server, passage, left }) = reach(&shared, port, &client, place).await else {
        cut(&client);
        return;
    };
    let _open = Counted::new(&shared.clients(port).open);
    let mut watch = shared.watch();
    let ended = tokio::select! {
        ended = both_ways(&client, &server, &passage) => ended.is_ok(),
        _ = watch.wait_for(|standing| standing.left(passage.server()) != left) => false,
    };
    if !ended {
        cut(&client);
        cut(&server);
    }
}

/// A connection to a server.
struct Reached<'a> {
    server: TcpStream,
    passage: Passage<'a>,
    /// How often the writer had left the server's region then.
    left: u64,
}

/// Connect to a server of this port, once that may be.
async fn reach<'a>(
    shared: &'a Shared,
    port: Port,
    client: &TcpStream,
    place: Place,
) -> Option<Reached<'a>> {
    let _waiting = Counted::new(&shared.clients(port).waiting);
    let deadline = Instant::now() + PATIENCE;
    let gate = match port {
        Port::Write => shared.gate(client.peer_addr().ok()?),
        Port::Read => Gate::Held,
    };
    let trying = async {
        let _turn = match gate {
            Gate::Held => Some(place.turn().await?),
            // Those that are held have all the turns.
            Gate::Lifted => None,
        };
        Some(match port {
            Port::Write => reach_writer(shared, client, gate).await,
            Port::Read => reach_near(shared, client).await,
        })
    };
    tokio::select! {
        reached = timeout_at(deadline, trying) => reached.ok().flatten(),
        // Nobody waits any more: the place in the queue is somebody else's.
        () = gone(client) => None,
    }
}

/// To where the route points.
async fn reach_writer<'a>(shared: &'a Shared, client: &TcpStream, gate: Gate) -> Reached<'a> {
    let mut watch = shared.watch();
    loop {
        let open = watch.borrow_and_update().open(gate);
        if let Some((region, address, left)) = open
            && let passage = shared.lease.to_writer(region)
            && let Some(reached) = connect(shared, client, passage, (address, left)).await
        {
            if watch.borrow().open(gate).is_some() {
                return reached;
            }
            // It holds by now.
            cut(&reached.server);
            continue;
        }
        // A hold also ends by itself, which nobody says.
        let _ = timeout(AGAIN, watch.changed()).await;
    }
}

/// To the nearest server that takes a connection, whether the route holds or not.
async fn reach_near<'a>(shared: &'a Shared, client: &TcpStream) -> Reached<'a> {
    loop {
        for (region, address) in &shared.near_first {
            // In this order: a switch in between is seen once there is a connection.
            let left = shared.watch().borrow().left(region);
            let passage = shared.lease.to_reader(region.clone());
            if let Some(reached) = connect(shared, client, passage, (*address, left)).await {
                return reached;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Nothing where bytes may not pass there, it takes no connection, or the writer has left it meanwhile.
async fn connect<'a>(
    shared: &'a Shared,
    client: &TcpStream,
    passage: Passage<'a>,
    (node, left): (SocketAddr, u64),
) -> Option<Reached<'a>> {
    if !passage.lets_pass() {
        return None;
    }
    let address = shared.fronts.get(passage.server()).copied().unwrap_or(node);
    let server = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
    tune(&server).ok()?;
    match shared.proxy_protocol {
        ProxyProtocol::Off => {}
        ProxyProtocol::V2 => {
            let who = header::v2(client.peer_addr().ok()?, client.local_addr().ok()?);
            timeout(CONNECT, say(&server, &who)).await.ok()?.ok()?;
        }
    }
    if shared.watch().borrow().left(passage.server()) != left {
        cut(&server);
        return None;
    }
    Some(Reached { server, passage, left })
}

/// Comes back when a client that waits has ended its connection. One that has said all it has to say,
/// and listens still, looks the same: it is served if that takes no longer than until the first look.
async fn gone(client: &TcpStream) {
    loop {
        tokio::time::sleep(LOOK).await;
        if has_ended(client) {
            return;
        }
    }
}
