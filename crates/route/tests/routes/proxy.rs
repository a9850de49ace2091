//! What the router does besides: sessions that are open are cut when the writer has moved, and Redis
//! is served as PostgreSQL is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tier0_config::{ProxyProtocol, RouteKind, RouteReads, Secret};
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::route::RouteOrder;
use tier0_core::words::Epoch;
use tier0_route::pointer::plain_text;
use tier0_route::{Client as Served, Pointed, Route, RouteSettings};
use tier0_router::Way;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::scenario;

scenario!(a_session_goes_on_in_the_hold_and_is_cut_by_the_switch, {
    let rig = Rig::with(RouteKind::Proxy).await;
    let client = rig.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    // What confirmed the route before may not have left yet.
    rig.seen("nobody else is there", |view| view.active == 1).await;
    let held = rig.done(hold(100, 60_000)).await;
    let Fact::Held { open, .. } = &held else { panic!("{held:?}") };
    assert!(open.len() == 1 && open[0].starts_with("1 connections"), "{open:?}");
    client.batch_execute("COMMIT").await.unwrap();
    rig.done(switch(2, 2)).await;
    let error = client.batch_execute("SELECT 1").await.unwrap_err();
    assert!(error.is_closed() || error.as_db_error().is_none(), "{error}");
    // The agent's own, which waits for the release.
    rig.seen("one is left", |view| view.active == 1).await;
    rig.done(release(2, 2)).await;
});

scenario!(
    the_statement_that_must_come_back_is_said_by_a_client_that_was_there_before_the_others,
    {
        let rig = Rig::with(RouteKind::Proxy).await;
        rig.done(hold(100, 60_000)).await;
        rig.done(switch(2, 2)).await;
        let direct = rig.connect_to(rig.settings.nodes[&region(2)]).await;
        let others = "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state = 'idle'";
        let deadline = tokio::time::Instant::now() + LIMIT;
        while value(&direct, others).await.unwrap() != "1" {
            assert!(tokio::time::Instant::now() < deadline, "nobody has logged in");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // All others wait, and one that came now would not get in.
        rig.seen("it holds", |view| view.held && view.waiting == 0).await;
        direct.batch_execute("ALTER ROLE current_user NOLOGIN").await.unwrap();
        rig.done(release(2, 2)).await;
        // Where there is none any more, another comes.
        direct.batch_execute("ALTER ROLE current_user LOGIN").await.unwrap();
        rig.done(release(2, 2)).await;
    }
);

scenario!(who_reads_gets_to_the_near_server_also_in_a_hold_and_to_the_other_where_it_is_gone, {
    let mut rig = Rig::with(RouteKind::Proxy).await;
    rig.done(switch(2, 2)).await;
    rig.done(hold(100, 60_000)).await;
    let reads = rig.reader().await;
    assert_eq!(rig.answers(&reads).await, region(1));
    rig.done(release(2, 2)).await;
    assert_eq!(rig.answers(&rig.client().await).await, region(2));
    // It is the writer again, and what reads there goes on.
    rig.done(switch(3, 1)).await;
    assert_eq!(rig.answers(&reads).await, region(1));
    rig.done(release(3, 1)).await;
    rig.kill_first_server();
    assert!(reads.batch_execute("SELECT 1").await.is_err());
    assert_eq!(rig.answers(&rig.reader().await).await, region(2));
});

scenario!(named_statements_and_notifications_pass, {
    // What PgBouncer's transaction pooling cannot do.
    let rig = Rig::with(RouteKind::Proxy).await;
    let client = rig.client().await;
    let named = client.prepare("SELECT $1::int + 1").await.unwrap();
    for number in 0..3 {
        let row = client.query_one(&named, &[&number]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), number + 1);
    }
    client.batch_execute("LISTEN here; CREATE TEMP TABLE t (i int); NOTIFY here").await.unwrap();
    assert_eq!(value(&client, "SELECT count(*) FROM t").await.unwrap(), "0");
    // More than any buffer on the way holds.
    let long = value(&client, "SELECT length(repeat('x', 20000000))").await.unwrap();
    assert_eq!(long, "20000000");
    let long = value(&client, "SELECT repeat('x', 20000000)").await.unwrap();
    assert_eq!(long.len(), 20_000_000);
});

pub struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn redis(address: SocketAddr, directory: &std::path::Path) -> Redis {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--save", "", "--requirepass", "secret", "--dir"])
        .arg(directory)
        .stdout(Stdio::null());
    Redis(command.spawn().expect("redis-server: scripts/setup installs it"))
}

/// A session with a Redis.
pub struct Session(TcpStream);

impl Session {
    pub async fn open(address: SocketAddr) -> std::io::Result<Session> {
        Session::greet(TcpStream::connect(address).await?).await
    }

    /// By a connection that there is.
    pub async fn greet(stream: TcpStream) -> std::io::Result<Session> {
        let mut session = Session(stream);
        session.says("AUTH secret", "+OK").await?;
        Ok(session)
    }

    /// Ask, and read until this has come.
    pub async fn says(&mut self, ask: &str, wanted: &str) -> std::io::Result<String> {
        self.0.write_all(format!("{ask}\r\n").as_bytes()).await?;
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(wanted) {
            let mut buffer = [0; 1_024];
            let read = tokio::time::timeout(LIMIT, self.0.read(&mut buffer)).await;
            match read.map_err(|_| std::io::Error::other("no answer"))?? {
                0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
                read => said.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

/// A router before Redis in the first region, and its files in this directory.
pub fn to_cache(directory: &Path) -> tier0_config::RouteSettings {
    tier0_config::RouteSettings {
        name: "to-cache".parse().unwrap(),
        region: region(1),
        kind: RouteKind::Proxy,
        datastore: "cache".parse().unwrap(),
        address: free_address(),
        read_address: Some(free_address()),
        socket_directory: directory.to_owned(),
        admin_user: String::new(),
        reads: RouteReads::Bounded,
        pointer_file: directory.join("pointer"),
        proxy_protocol: ProxyProtocol::Off,
        fronts: BTreeMap::new(),
    }
}

scenario!(redis_is_held_moved_and_released_and_only_what_takes_writes_is_the_writer, {
    let root = tempfile::tempdir().unwrap();
    let addresses = [free_address(), free_address()];
    let [near, _far] = addresses.map(|address| redis(address, root.path()));
    let route = to_cache(root.path());
    let pointed = Pointed { epoch: Epoch::FIRST, to: region(1) };
    std::fs::write(&route.pointer_file, plain_text(&pointed, addresses[0])).unwrap();
    let (port, reads) = (route.address, route.read_address.unwrap());
    let listens = tier0_route::control::socket(&route);
    let nodes: BTreeMap<_, _> = [(region(1), addresses[0]), (region(2), addresses[1])].into();
    let ways = [Way { route: route.clone(), nodes: nodes.clone() }];
    let router = tokio::spawn(async move {
        tier0_router::serve(&ways, 1_000, std::future::pending()).await.unwrap();
    });
    let client = Served::Redis { password: Secret::new("secret") };
    let adapter = Arc::new(Route::new(RouteSettings { route, nodes, client }));
    let order = async |order: RouteOrder, limit: Duration| {
        adapter.perform(&Order::Route { order }, limit).await
    };
    let done = async |one: RouteOrder| {
        let outcome = order(one, LIMIT).await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    };
    let deadline = tokio::time::Instant::now() + LIMIT;
    // The file is there a moment before somebody listens.
    while UnixStream::connect(&listens).is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the router does not listen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Both run.
    done(release(1, 1)).await;
    let mut open = Session::open(port).await.unwrap();
    open.says("SET where region1", "+OK").await.unwrap();

    done(hold(0, 60_000)).await;
    let comes = tokio::spawn(async move {
        let mut session = Session::open(port).await?;
        session.says("GET where", "\r\n").await
    });
    done(switch(2, 2)).await;
    let cut = open.says("GET where", "region1").await;
    assert!(cut.is_err(), "{cut:?}");
    // It is a replica for now: nothing is claimed.
    let mut direct = Session::open(addresses[1]).await.unwrap();
    direct.says("SET where region2", "+OK").await.unwrap();
    direct.says(&format!("REPLICAOF 127.0.0.1 {}", free_address().port()), "+OK").await.unwrap();
    let outcome = order(release(2, 2), Duration::from_millis(300)).await;
    let Outcome::Failed { why } = &outcome else { panic!("{outcome}") };
    assert!(why.contains("through the route: the server is a replica"), "{why}");
    // A master, and fenced.
    direct.says("REPLICAOF NO ONE", "+OK").await.unwrap();
    direct.says("SET tier0:takes-writes taken", "+OK").await.unwrap();
    direct.says("CONFIG SET min-replicas-to-write 99", "+OK").await.unwrap();
    let outcome = order(release(2, 2), Duration::from_millis(300)).await;
    let Outcome::Failed { why } = &outcome else { panic!("{outcome}") };
    assert!(why.contains("NOREPLICAS"), "{why}");
    direct.says("CONFIG SET min-replicas-to-write 0", "+OK").await.unwrap();
    done(release(2, 2)).await;
    direct.says("GET tier0:takes-writes", "taken").await.unwrap();
    let answered = comes.await.unwrap().unwrap();
    assert!(answered.contains('$'), "{answered}");
    let mut session = Session::open(port).await.unwrap();
    session.says("GET where", "region2").await.unwrap();
    // Who only reads gets to the near one, until that is gone.
    Session::open(reads).await.unwrap().says("GET where", "region1").await.unwrap();
    drop(near);
    Session::open(reads).await.unwrap().says("GET where", "region2").await.unwrap();
    router.abort();
});
