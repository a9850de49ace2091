//! The reference backend: it takes telemetry of devices over HTTP, keeps it in PostgreSQL and
//! caches the newest reading of each device in Redis.
//!
//! It is the application that tier0 moves, and shows what an application must do to come through a
//! move without losing or inventing anything: find the writer by itself, know which outcomes are
//! unknown, and repeat only what is safe to repeat. It knows nothing of agents and orchestrators.
//!
//! Left out: TLS, authentication and rate limits, which belong to whatever stands in front of it.

mod backend;
mod cache;
mod committer;
mod database;
mod group;
mod http;
mod listen;
mod metrics;
mod reading;
mod selection;
mod service;

use std::future::Future;
use std::path::Path;

use anyhow::Context;
use tier0_config::{Follower, Reader, Stack};
use tier0_core::words::Region;

/// Serve one region of the stack that this file describes, until `shutdown` is ready.
///
/// Requests that have begun are finished first, for at most five seconds. Fails at once where the
/// file, the secrets or the addresses cannot be used; a database that is down is no failure.
pub async fn run(
    config: &Path,
    region: Region,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stack = Stack::load(config).context("load configuration")?;
    // Nothing that it reads can change while it runs; it says so, and lives through SIGHUP.
    let follower = Follower::new(config.to_owned(), Reader::Backend(region.clone()), stack.clone());
    let mut following = tokio::task::JoinSet::new();
    following.spawn(tier0_config::follow(follower, |_| {}));
    serve(&stack, &region, shutdown).await
}

/// [`run`] for a stack that is loaded already.
pub async fn serve(
    stack: &Stack,
    region: &Region,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let settings =
        stack.telemetry.iter().find(|settings| settings.region == *region).with_context(|| {
            format!("the configuration has no [[telemetry]] for region {region}")
        })?;
    let service = service::Service::new(stack, settings).context("prepare telemetry service")?;
    let addresses = std::iter::once(settings.listen).chain(settings.also_listen.iter().copied());
    let listeners = listen::bind_all(addresses).context("bind telemetry listeners")?;
    tracing::info!(%region, address = %settings.listen, "telemetry service listens");
    listen::serve_all(listeners, http::router(service), shutdown).await;
    tracing::info!(%region, "telemetry service ended");
    Ok(())
}
