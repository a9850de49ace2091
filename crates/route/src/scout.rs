//! The agent's own client on its way through a router that holds all others: sent ahead right after the
//! switch, so that the statement that must come back does not wait until all of them have logged in.
//!
//! Left out: that the router lets it pass, which `proxy.rs` asks it for, and the statement (`confirm.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tier0_core::words::{Epoch, Region};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_postgres::Config;

use crate::confirm::{Along, LOOK};
use crate::console::Session;

/// One that was sent. It goes home when this is dropped, and when the hold is over.
#[derive(Debug)]
pub(crate) struct Scout {
    /// After which switch.
    of: (Epoch, Region),
    asked: oneshot::Sender<()>,
    on_its_way: JoinSet<Along>,
}

/// A connection of the agent that has an address and is not made yet.
pub(crate) struct Bound {
    socket: TcpSocket,
    /// As the route will see it.
    pub from: SocketAddr,
    to: SocketAddr,
}

impl Bound {
    /// For a route of this machine, which sees whoever comes from here by its own address.
    pub(crate) fn to(route: SocketAddr) -> std::io::Result<Bound> {
        let (socket, loopback): (_, IpAddr) = match route {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::LOCALHOST.into()),
        };
        let own = if route.ip().is_unspecified() { loopback } else { route.ip() };
        socket.bind(SocketAddr::new(own, 0))?;
        Ok(Bound { from: socket.local_addr()?, to: SocketAddr::new(own, route.port()), socket })
    }
}

impl Scout {
    /// Send one after this switch, for as long as others are held. A standby lets it log in before it
    /// writes.
    pub(crate) fn send(login: Config, bound: Bound, of: (Epoch, Region), until: Instant) -> Scout {
        let (asked, is_asked) = oneshot::channel();
        let limit = until.saturating_duration_since(Instant::now());
        let mut on_its_way = JoinSet::new();
        on_its_way.spawn(async move {
            let waiting = async {
                let stream = bound.socket.connect(bound.to).await.ok()?;
                let session = Session::over(stream, &login, limit).await.ok()?;
                is_asked.await.ok()?;
                Some(session)
            };
            tokio::time::timeout(limit, waiting).await.ok()?
        });
        Scout { of, asked, on_its_way }
    }

    /// Its session, if it was sent after this switch; it is not waited for longer than another would take
    /// that begins now.
    pub(crate) async fn session(mut self, of: &(Epoch, Region), limit: Duration) -> Along {
        if self.of != *of || self.asked.send(()).is_err() {
            return None;
        }
        let came = tokio::time::timeout(limit.min(LOOK), self.on_its_way.join_next()).await;
        came.ok()??.ok()?
    }
}
