//! Adapters of routes: what stands between clients and a datastore's writer, looked at, and each
//! order carried out. Three kinds: PgBouncer, HAProxy, and tier0's own router.
//!
//! An adapter refuses to point by an older epoch than it did, confirms what it did from the data
//! path, and lets clients go on by itself when a hold has lasted too long, also after a restart of
//! its agent. Left out: when a route is held and released (the core), and the stamps of orders (the
//! agent).

mod awaited;
mod confirm;
mod console;
pub mod control;
mod haproxy;
mod held;
mod kept;
mod pgbouncer;
pub mod pointer;
mod proxy;
mod scout;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tier0_config::{RouteKind, RouteReads};
use tier0_core::order::{Order, Outcome, Refusal};
use tier0_core::route::RouteView;
use tier0_core::words::{Epoch, Region};

pub use confirm::Client;
pub use pointer::{Pointed, pointer_text};

/// What an adapter must know.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// The route's own settings.
    pub route: tier0_config::RouteSettings,
    /// The datastore's node in each region.
    pub nodes: BTreeMap<Region, SocketAddr>,
    /// Whose clients it serves.
    pub client: Client,
}

/// One route, whatever its kind.
#[derive(Debug)]
pub enum Route {
    /// PgBouncer.
    PgBouncer(Box<pgbouncer::PgBouncer>),
    /// HAProxy.
    Haproxy(Box<haproxy::Haproxy>),
    /// tier0's own router.
    Proxy(Box<proxy::Proxy>),
}

impl Route {
    /// The adapter; touches nothing.
    pub fn new(settings: RouteSettings) -> Route {
        match settings.route.kind {
            RouteKind::Pgbouncer => Route::PgBouncer(Box::new(pgbouncer::PgBouncer::new(settings))),
            RouteKind::Haproxy => Route::Haproxy(Box::new(haproxy::Haproxy::new(settings))),
            RouteKind::Proxy => Route::Proxy(Box::new(proxy::Proxy::new(settings))),
        }
    }

    /// Look at it once.
    pub async fn observe(&self) -> RouteView {
        match self {
            Route::PgBouncer(route) => route.observe().await,
            Route::Haproxy(route) => route.observe().await,
            Route::Proxy(route) => route.observe().await,
        }
    }

    /// Carry out an order.
    pub async fn perform(&self, order: &Order, limit: Duration) -> Outcome {
        match self {
            Route::PgBouncer(route) => route.perform(order, limit).await,
            Route::Haproxy(route) => route.perform(order, limit).await,
            Route::Proxy(route) => route.perform(order, limit).await,
        }
    }

    /// End holds that last too long, and let clients go on as soon as their writer is there; for ever.
    pub async fn keep_watch(&self) {
        match self {
            Route::PgBouncer(route) => route.keep_watch().await,
            Route::Haproxy(route) => route.keep_watch().await,
            // The router itself ends them.
            Route::Proxy(route) => route.keep_watch().await,
        }
    }

    /// Whether it wants to be told for how long it may pass answers on.
    pub fn is_leased(&self) -> bool {
        let strict = |settings: &RouteSettings| settings.route.reads == RouteReads::Strict;
        matches!(self, Route::Proxy(route) if strict(route.settings()))
    }

    /// It may pass on what servers of its own region answer, for so long from now.
    pub async fn lease(&self, lasting: Duration) {
        match self {
            // They cannot check one.
            Route::PgBouncer(_) | Route::Haproxy(_) => {}
            Route::Proxy(route) => route.lease(lasting).await,
        }
    }

    /// Point at the writer that an orchestrator named only just now, where it is behind.
    pub async fn keep_pointed(&self, writer: &Region, epoch: Epoch) {
        match self {
            Route::PgBouncer(route) => route.keep_pointed(writer, epoch).await,
            Route::Haproxy(route) => route.keep_pointed(writer, epoch).await,
            Route::Proxy(route) => route.keep_pointed(writer, epoch).await,
        }
    }
}

/// The result of anything that an order does on its way; an error is an outcome other than done.
type Attempt<T> = Result<T, Outcome>;

fn failed(why: impl Into<String>) -> Outcome {
    Outcome::Failed { why: why.into() }
}

fn unknown(why: impl Into<String>) -> Outcome {
    Outcome::Unknown { why: why.into() }
}

fn refused(code: &str, sentence: impl Into<String>) -> Outcome {
    Outcome::Refused { refusal: Refusal::new(code, sentence) }
}

/// What is left until then.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
