//! Listening sockets as every role opens them. Left out: what is served on them.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted. The usual 128 overflows in the storm of
/// reconnects after a failover, and each overflow costs its client a second.
const BACKLOG: i32 = 4096;

/// Open a listening socket. One that is opened again does not wait for the connections of the one
/// before.
///
/// # Errors
/// The address cannot be had. Needs a runtime of tokio.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
