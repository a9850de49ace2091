//! Letting clients go on as soon as the server writes that their route was switched to.
//!
//! The order for that comes as well, and does what is left to do. But it comes from the orchestrator,
//! which hears of the promotion from another agent and has both written down first, while clients wait.
//! Nobody is looked for when no clients are held.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::watch;

use crate::confirm::Client;

/// The server that clients who are held wait for.
#[derive(Debug, Default)]
pub(crate) struct Awaited(watch::Sender<Expected>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Expected {
    held_until: Option<Instant>,
    server: Option<SocketAddr>,
}

impl Awaited {
    /// Clients are held, at most until then.
    pub(crate) fn held(&self, until: Instant) {
        self.0.send_replace(Expected { held_until: Some(until), server: None });
    }

    /// Until when they are held at most, unless that is over.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.0.borrow().held_until.filter(|until| *until > Instant::now())
    }

    /// They go on.
    pub(crate) fn over(&self) {
        self.0.send_replace(Expected::default());
    }

    /// The route was switched to this server.
    pub(crate) fn expect(&self, server: SocketAddr) {
        self.0.send_modify(|expected| expected.server = Some(server));
    }

    /// An order has come: what was expected is for it to say.
    pub(crate) fn forget(&self) {
        self.0.send_modify(|expected| expected.server = None);
    }

    /// Wait until the server that is expected takes writes, whichever that is by then.
    pub(crate) async fn writes(&self, client: &Client) -> SocketAddr {
        let mut changed = self.0.subscribe();
        loop {
            let expected = *changed.borrow_and_update();
            let writes = async {
                if let Expected { held_until: Some(until), server: Some(server) } = expected {
                    let limit = until.saturating_duration_since(Instant::now());
                    if tokio::time::timeout(limit, client.until_it_writes(server)).await.is_ok() {
                        return server;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                server = writes => return server,
                // The sender is here: it is not an error.
                _ = changed.changed() => {}
            }
        }
    }

    /// Whether no order has come since; from here on nothing is expected.
    pub(crate) fn is_still(&self, server: SocketAddr) -> bool {
        let mut was = None;
        self.0.send_modify(|expected| was = expected.server.take());
        was == Some(server)
    }
}
