//! The router as a process: its ports, their sockets, and how many clients there may be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tier0_config::{RouteKind, RouteSettings, Stack};
use tier0_core::words::Region;
use tier0_listen::listen;
use tier0_route::control::socket;
use tokio::net::TcpListener;

use crate::socket::cut;
use crate::state::{Port, Shared};
use crate::workers::Workers;
use crate::{connection, control, pipe};

/// How many clients a port has at most, where the limit of open files allows it.
const SLOTS: usize = 20_000;
/// Files that are not for clients: listeners, the agent's requests, logs, and some for each thread.
const OTHER_FILES: usize = 256;

/// A route, and where the nodes of its datastore are.
#[derive(Debug, Clone)]
pub struct Way {
    /// The route.
    pub route: RouteSettings,
    /// The node in each region.
    pub nodes: BTreeMap<Region, SocketAddr>,
}

impl Way {
    fn ports(&self) -> usize {
        1 + usize::from(self.route.read_address.is_some())
    }
}

/// Run the routes of kind `proxy` of a region until `shutdown` resolves.
///
/// # Errors
/// There are none, a file of one is damaged, or a port or socket cannot be had.
pub async fn run(
    config: &Path,
    region: &Region,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let stack = Stack::load(config)?;
    let own = |route: &&RouteSettings| route.kind == RouteKind::Proxy && route.region == *region;
    let ways: Vec<Way> = stack
        .routes
        .iter()
        .filter(own)
        .map(|route| {
            let nodes = stack.datastore(&route.datastore).map(|datastore| datastore.nodes.iter());
            let nodes = nodes.into_iter().flatten();
            Way {
                route: route.clone(),
                nodes: nodes.map(|node| (node.region.clone(), node.address)).collect(),
            }
        })
        .collect();
    if ways.is_empty() {
        bail!("{} has no route of kind proxy in {region}", config.display());
    }
    // A client has two files: its own connection and the one to the server.
    let other = OTHER_FILES + Workers::count().context("count the cores")? * pipe::FILES;
    let ports = ways.iter().map(Way::ports).sum::<usize>();
    let room = files().saturating_sub(other) / 2 / ports;
    serve(&ways, room.min(SLOTS), shutdown).await
}

/// Run these routes, each port for so many clients at most, until `shutdown` resolves.
///
/// # Errors
/// A file of one is damaged, or a port or socket cannot be had.
pub async fn serve(
    ways: &[Way],
    slots: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let workers = Arc::new(Workers::start().context("start the threads that carry bytes")?);
    let mut running = Vec::new();
    for way in ways {
        running.push(begin(way, slots, Arc::clone(&workers))?);
    }
    tokio::select! {
        _ = futures_util::future::join_all(running) => {}
        () = shutdown => {}
    }
    Ok(())
}

/// Listen for a route; the answer goes on for ever.
fn begin(
    way: &Way,
    slots: usize,
    workers: Arc<Workers>,
) -> Result<impl Future<Output = ()> + use<>> {
    let route = &way.route;
    let (id, file) = (route.id(), &route.pointer_file);
    let shared = Shared::read(way, slots);
    let shared = Arc::new(shared.with_context(|| format!("read {}", file.display()))?);
    let at = |address: SocketAddr| {
        listen(address).with_context(|| format!("listen on {address} as {id}"))
    };
    let write = at(route.address)?;
    let read = route.read_address.map(at).transpose()?;
    let told = control::listen(&socket(route))?;
    let (address, reads) = (route.address, route.read_address.map(tracing::field::display));
    tracing::info!(route = %id, %address, reads, clients_most = slots, "the route listens");
    Ok(async move {
        let reading = async {
            if let Some(read) = read {
                accept(read, Port::Read, Arc::clone(&shared), &workers).await;
            }
        };
        tokio::join!(
            accept(write, Port::Write, Arc::clone(&shared), &workers),
            reading,
            control::serve(told, Arc::clone(&shared)),
        );
    })
}

async fn accept(listener: TcpListener, port: Port, shared: Arc<Shared>, workers: &Workers) {
    let clients = shared.clients(port);
    loop {
        match listener.accept().await {
            Ok((client, from)) => match Arc::clone(&clients.slots).try_acquire_owned() {
                Ok(slot) => {
                    // From this runtime's files to those of the thread that will have it.
                    match client.into_std() {
                        Ok(client) => {
                            let place = connection::Place::take(clients);
                            let shared = Arc::clone(&shared);
                            workers.spawn(connection::serve(shared, port, client, place, slot));
                        }
                        Err(error) => tracing::warn!(%error, "a connection cannot be kept"),
                    }
                }
                Err(_) => {
                    // At once: it may find room at another router, and learns nothing by waiting.
                    tracing::debug!(%from, "no room for another client");
                    cut(&client);
                }
            },
            Err(error) => {
                // Out of files, most likely: those that are open go on.
                tracing::warn!(%error, "a connection cannot be taken");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// How many files this process may have open, once it has asked for as many as it may.
fn files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let most = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}
