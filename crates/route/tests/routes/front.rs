//! A HAProxy before a server, which the router tells who the client is.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tier0_config::ProxyProtocol;
use tier0_core::words::Epoch;
use tier0_route::Pointed;
use tier0_route::pointer::plain_text;
use tier0_router::Way;
use tokio::net::TcpSocket;

use crate::harness::*;
use crate::proxy::{Session, redis, to_cache};
use crate::scenario;

struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

scenario!(a_haproxy_that_expects_the_header_sees_who_the_client_is, {
    let root = tempfile::tempdir().unwrap();
    let (node, front) = (free_address(), free_address());
    let _server = redis(node, root.path());
    // It lets one client in, by the address that the header says: all come from the router.
    let text = format!(
        "defaults\n  mode tcp\n  retries 0\n  timeout connect 500ms\n  timeout client 1h\n  \
         timeout server 1h\n\
         listen front\n  bind {front} accept-proxy\n  \
         tcp-request session reject unless {{ src 127.0.0.7 }}\n  server node {node}\n"
    );
    let file = root.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path).arg("-db").arg("-f").arg(&file).stdout(Stdio::null());
    let _haproxy = Haproxy(command.spawn().expect("haproxy: scripts/setup installs it"));
    let route = tier0_config::RouteSettings {
        read_address: None,
        proxy_protocol: ProxyProtocol::V2,
        fronts: [(region(1), front)].into(),
        ..to_cache(root.path())
    };
    let pointed = Pointed { epoch: Epoch::FIRST, to: region(1) };
    std::fs::write(&route.pointer_file, plain_text(&pointed, node)).unwrap();
    let port = route.address;
    let ways = [Way { route, nodes: BTreeMap::from([(region(1), node)]) }];
    let router = tokio::spawn(async move {
        tier0_router::serve(&ways, 1_000, std::future::pending()).await.unwrap();
    });
    let from = async |address: &str| {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{address}:0").parse().unwrap())?;
        Session::greet(socket.connect(port).await?).await
    };
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut session = loop {
        match from("127.0.0.7").await {
            Ok(session) => break session,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    session.says("SET who client", "+OK").await.unwrap();
    session.says("GET who", "client").await.unwrap();
    assert!(from("127.0.0.8").await.is_err(), "another client was taken for this one");
    // And who says nothing of the kind is not let in at all.
    assert!(Session::open(front).await.is_err());
    router.abort();
});
