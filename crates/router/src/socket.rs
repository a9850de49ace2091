//! Connections as the router wants them: no delay for small packets, an end for a peer that is gone.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a peer may acknowledge nothing. Not shorter: a client that does not read for a while, and
/// a server that waits for a lock in the middle of a COPY, look the same as one that is gone. A
/// server of a region that is gone is cut by the switch, not by this.
const UNANSWERED: Duration = Duration::from_secs(30);

/// What both sides of a connection get.
pub fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&alive)?;
    socket.set_tcp_user_timeout(Some(UNANSWERED))
}

/// End it with a reset once it is dropped: what is on its way must not look like an orderly end.
pub fn cut(stream: &TcpStream) {
    // Where this fails the connection is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whether its peer will say nothing more, also where something it said has not been read yet.
pub fn has_ended(stream: &TcpStream) -> bool {
    let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut polled = [PollFd::new(stream, ends)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
        && polled[0].revents().intersects(ends)
}
