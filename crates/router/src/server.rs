//! The router as a process: its ports, their sockets, and how many clients there may be.

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
use crate::state::Shared;
use crate::workers::Workers;
use crate::{connection, control};

/// How many clients a route has at most, where the limit of open files allows it.
const SLOTS: usize = 20_000;
/// Files that are not for clients: listeners, the agent's requests, logs, and some for each thread.
const OTHER_FILES: usize = 256;

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
    let routes: Vec<RouteSettings> = stack.routes.iter().filter(own).cloned().collect();
    if routes.is_empty() {
        bail!("{} has no route of kind proxy in {region}", config.display());
    }
    // A client has two files: its own connection and the one to the server.
    let room = files().saturating_sub(OTHER_FILES) / 2 / routes.len();
    serve(&routes, room.min(SLOTS), shutdown).await
}

/// Run these routes, each for so many clients at most, until `shutdown` resolves.
///
/// # Errors
/// A file of one is damaged, or a port or socket cannot be had.
pub async fn serve(
    routes: &[RouteSettings],
    slots: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let workers = Arc::new(Workers::start().context("start the threads that carry bytes")?);
    let mut running = Vec::new();
    for route in routes {
        running.push(begin(route, slots, Arc::clone(&workers))?);
    }
    tokio::select! {
        _ = futures_util::future::join_all(running) => {}
        () = shutdown => {}
    }
    Ok(())
}

/// Listen for a route; the answer goes on for ever.
fn begin(
    route: &RouteSettings,
    slots: usize,
    workers: Arc<Workers>,
) -> Result<impl Future<Output = ()> + use<>> {
    let (id, file) = (route.id(), &route.pointer_file);
    let shared = Shared::read(route, slots);
    let shared = Arc::new(shared.with_context(|| format!("read {}", file.display()))?);
    let listener = listen(route.address);
    let listener = listener.with_context(|| format!("listen on {} as {id}", route.address))?;
    let told = control::listen(&socket(route))?;
    tracing::info!(route = %id, address = %route.address, clients_most = slots, "the route listens");
    Ok(async move {
        tokio::join!(accept(listener, Arc::clone(&shared), &workers), control::serve(told, shared));
    })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, workers: &Workers) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => match Arc::clone(&shared.slots).try_acquire_owned() {
                Ok(slot) => {
                    // From this runtime's files to those of the thread that will have it.
                    match client.into_std() {
                        Ok(client) => {
                            let place = connection::Place::take(&shared);
                            let shared = Arc::clone(&shared);
                            workers.spawn(connection::serve(shared, client, place, slot));
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
