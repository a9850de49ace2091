//! What each port does with its connections, in a router of this process. Each server says its name
//! first. Left out: crowds, and what takes a process of its own (`crowd.rs`).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tier0_config::{ProxyProtocol, RouteReads, RouteSettings};
use tier0_core::words::{Epoch, Region};
use tier0_route::control::{Answer, Ask, RouterState, ask, socket};
use tier0_router::Way;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{self, free_address, settings, skipped};

const LIMIT: Duration = Duration::from_secs(20);

fn region(number: u8) -> Region {
    format!("region{number}").parse().unwrap()
}

/// A server that says its name, then sends back what it gets.
async fn server(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(&[name]).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

struct Rig {
    settings: RouteSettings,
    servers: [SocketAddr; 2],
    running: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Rig {
    /// The router runs, and points at the first server by epoch 1.
    async fn new() -> Rig {
        Rig::with(20_000, RouteReads::Bounded).await
    }

    /// The same, for so many clients, with such reads.
    async fn with(slots: usize, reads: RouteReads) -> Rig {
        let rig = Rig::untold(slots, reads, [server(b'1').await, server(b'2').await]).await;
        rig.point(1, 1).await;
        rig
    }

    /// The router runs, between these, and points nowhere.
    async fn untold(slots: usize, reads: RouteReads, servers: [SocketAddr; 2]) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let settings = RouteSettings { reads, ..settings(directory.path()) };
        let running = start(&settings, servers, slots).await;
        Rig { settings, servers, running, _directory: directory }
    }

    async fn ask(&self, what: Ask) -> Answer {
        ask(&socket(&self.settings), &what, LIMIT).await.unwrap()
    }

    async fn told(&self, what: Ask) -> RouterState {
        match self.ask(what.clone()).await {
            Answer::State(state) => state,
            other => panic!("{what:?}: {other:?}"),
        }
    }

    fn pointing(&self, epoch: u64, to: u8) -> Ask {
        let address = self.servers[usize::from(to) - 1];
        Ask::Point { epoch: Epoch::read(epoch), to: region(to), address }
    }

    async fn point(&self, epoch: u64, to: u8) -> RouterState {
        self.told(self.pointing(epoch, to)).await
    }

    async fn seen(&self, wanted: impl Fn(&RouterState) -> bool) -> RouterState {
        support::seen(LIMIT, async || self.told(Ask::Look).await, wanted).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.settings.address).await.unwrap()
    }

    /// By the port for reads.
    async fn connect_to_read(&self) -> TcpStream {
        TcpStream::connect(self.settings.read_address.unwrap()).await.unwrap()
    }

    /// The region may serve for so long from now.
    async fn lease(&self, lasting_ms: u64) {
        let stamp_us = self.told(Ask::Look).await.stamp_us;
        self.told(Ask::Lease { stamp_us, lasting_ms }).await;
    }
}

/// Whether somebody else has the address.
fn is_taken(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.into_iter().any(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}

async fn start(settings: &RouteSettings, servers: [SocketAddr; 2], slots: usize) -> JoinHandle<()> {
    let nodes = [(region(1), servers[0]), (region(2), servers[1])].into();
    let own = [Way { route: settings.clone(), nodes }];
    let deadline = Instant::now() + LIMIT;
    let running = tokio::spawn(async move {
        loop {
            match tier0_router::serve(&own, slots, std::future::pending()).await {
                // A client of another test was given the port that was free a moment ago.
                Err(error) if is_taken(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                ended => return ended.unwrap(),
            }
        }
    });
    while ask(&socket(settings), &Ask::Look, LIMIT).await.is_err() {
        assert!(Instant::now() < deadline && !running.is_finished(), "the router does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running
}

/// Whether this server answers what a client says.
async fn answers(client: &mut TcpStream) -> bool {
    client.write_all(b"x").await.is_ok()
        && matches!(tokio::time::timeout(LIMIT, client.read_u8()).await, Ok(Ok(b'x')))
}

/// Nothing comes back, for a while at least, and no end either.
async fn hears_nothing(client: &mut TcpStream) {
    let waited = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
    assert!(waited.is_err(), "something passed: {waited:?}");
}

/// It ends with a reset.
async fn is_cut(client: &mut TcpStream) {
    let ended = tokio::time::timeout(LIMIT, client.read_u8()).await;
    let error = ended.expect("it was left open").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

/// The name of the server that a client got to.
async fn name(client: &mut TcpStream) -> std::io::Result<u8> {
    let read = tokio::time::timeout(LIMIT, client.read_u8()).await;
    read.expect("a server says its name")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_come_while_it_holds_wait_and_those_that_are_open_are_cut() {
    let rig = Rig::new().await;
    let mut open = rig.connect().await;
    assert_eq!(name(&mut open).await.unwrap(), b'1');
    for (epoch, to) in [(2, 2), (3, 1)] {
        rig.told(Ask::Hold { hold_ms: 60_000 }).await;
        let mut waits = rig.connect().await;
        rig.seen(|state| state.held_ms.is_some() && state.waiting == 1).await;
        // What is open goes on until the writer has moved.
        open.write_all(b"x").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'x');
        rig.point(epoch, to).await;
        rig.point(epoch, to).await;
        let cut = open.read_u8().await.unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset, "{cut}");
        assert_eq!(rig.seen(|state| state.open == 0).await.waiting, 1);
        let state = rig.told(Ask::Release).await;
        assert!(state.held_ms.is_none() && state.to == Some(region(to)), "{state:?}");
        assert_eq!(name(&mut waits).await.unwrap(), b'0' + to);
        open = waits;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_own_client_passes_where_others_are_held_once() {
    let rig = Rig::new().await;
    rig.told(Ask::Hold { hold_ms: 60_000 }).await;
    let mut waits = rig.connect().await;
    // More than have a turn at once.
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(rig.connect().await);
    }
    rig.seen(|state| state.waiting == 101).await;
    rig.point(2, 2).await;
    let own = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (socket.local_addr().unwrap(), socket)
    };
    let (from, socket) = own();
    rig.told(Ask::Admit { from }).await;
    let mut passes = socket.connect(rig.settings.address).await.unwrap();
    assert_eq!(name(&mut passes).await.unwrap(), b'2');
    assert!(answers(&mut passes).await);
    hears_nothing(&mut waits).await;
    // It is nobody's right to come again, and no crowd's to come so.
    socket2::SockRef::from(&passes).set_linger(Some(Duration::ZERO)).unwrap();
    drop(passes);
    let again = TcpSocket::new_v4().unwrap();
    again.bind(from).unwrap();
    hears_nothing(&mut again.connect(rig.settings.address).await.unwrap()).await;
    let many: Vec<_> = (0..20).map(|_| own()).collect();
    for (from, _) in &many {
        rig.told(Ask::Admit { from: *from }).await;
    }
    let mut clients = Vec::new();
    for (_, socket) in many {
        clients.push(socket.connect(rig.settings.address).await.unwrap());
    }
    for client in &mut clients[12..] {
        assert_eq!(name(client).await.unwrap(), b'2');
    }
    for client in &mut clients[..12] {
        let read = tokio::time::timeout(Duration::from_millis(20), client.read_u8()).await;
        assert!(read.is_err(), "more than eight passed");
    }
    // What was said for one hold is worth nothing in the next, nor for the port for reads.
    let (from, socket) = own();
    rig.told(Ask::Admit { from }).await;
    rig.told(Ask::Hold { hold_ms: 60_000 }).await;
    hears_nothing(&mut socket.connect(rig.settings.address).await.unwrap()).await;
    rig.told(Ask::Release).await;
    assert_eq!(name(&mut waits).await.unwrap(), b'2');
    for client in &mut crowd {
        assert_eq!(name(client).await.unwrap(), b'2');
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_epoch_is_refused_also_by_the_next_run() {
    let rig = Rig::new().await;
    rig.point(5, 2).await;
    for older in [rig.pointing(4, 1), rig.pointing(5, 1)] {
        assert!(matches!(rig.ask(older).await, Answer::Refused { .. }));
    }
    rig.running.abort();
    let again = start(&rig.settings, rig.servers, 20_000).await;
    assert!(matches!(rig.ask(rig.pointing(4, 1)).await, Answer::Refused { .. }));
    assert_eq!(name(&mut rig.connect().await).await.unwrap(), b'2');
    again.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_ends_by_itself() {
    let rig = Rig::new().await;
    let began = Instant::now();
    rig.told(Ask::Hold { hold_ms: 300 }).await;
    assert_eq!(name(&mut rig.connect().await).await.unwrap(), b'1');
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(rig.told(Ask::Look).await.held_ms.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_strict_reads_nothing_passes_without_a_lease_and_a_late_word_gives_none() {
    let rig = Rig::with(20_000, RouteReads::Strict).await;
    let mut client = rig.connect().await;
    let waited = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
    assert!(waited.is_err(), "it was served without a lease");
    let stamp = rig.told(Ask::Look).await.stamp_us;
    rig.told(Ask::Lease { stamp_us: stamp, lasting_ms: 60_000 }).await;
    assert_eq!(name(&mut client).await.unwrap(), b'1');

    let rig = Rig::with(20_000, RouteReads::Strict).await;
    let stamp = rig.told(Ask::Look).await.stamp_us;
    rig.told(Ask::Lease { stamp_us: stamp, lasting_ms: 1_500 }).await;
    let mut client = rig.connect().await;
    assert_eq!(name(&mut client).await.unwrap(), b'1');
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    // It was under way for longer than it is good for.
    rig.told(Ask::Lease { stamp_us: stamp, lasting_ms: 1_500 }).await;
    client.write_all(b"x").await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
    assert!(waited.is_err(), "an answer came after the end of the lease");
    // A server of another region is not this lease's.
    rig.point(2, 2).await;
    assert!(client.read_u8().await.is_err());
    assert_eq!(name(&mut rig.connect().await).await.unwrap(), b'2');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_waited_for() {
    let rig = Rig::new().await;
    let nowhere = Ask::Point { epoch: Epoch::read(2), to: region(2), address: free_address() };
    rig.told(nowhere).await;
    let mut waits = rig.connect().await;
    rig.seen(|state| state.waiting == 1).await;
    rig.point(3, 1).await;
    assert_eq!(name(&mut waits).await.unwrap(), b'1');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_at_once_leaves_no_session_of_the_first_time() {
    let rig = Rig::new().await;
    let mut open = rig.connect().await;
    assert_eq!(name(&mut open).await.unwrap(), b'1');
    // Nothing in between: its task may see the last of these only.
    rig.point(2, 2).await;
    rig.point(3, 1).await;
    let cut = tokio::time::timeout(LIMIT, open.read_u8()).await;
    assert!(cut.expect("it was left open").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_there_is_room_for_are_turned_away_at_once_and_the_others_served() {
    let rig = Rig::with(10, RouteReads::Bounded).await;
    let mut served = Vec::new();
    for _ in 0..10 {
        let mut client = rig.connect().await;
        assert_eq!(name(&mut client).await.unwrap(), b'1');
        served.push(client);
    }
    for _ in 0..100 {
        // As far as it got: the reset may come before this side knows that it is connected.
        if let Ok(mut client) = TcpStream::connect(rig.settings.address).await {
            assert!(name(&mut client).await.is_err());
        }
    }
    // It is told what to do all the same.
    assert_eq!(rig.told(Ask::Look).await.open, 10);
    for client in &mut served {
        client.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
    served.pop();
    rig.seen(|state| state.open == 9).await;
    let mut client = rig.connect().await;
    assert_eq!(name(&mut client).await.unwrap(), b'1');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_while_it_holds_leaves_the_queue_also_with_something_said() {
    let rig = Rig::new().await;
    rig.told(Ask::Hold { hold_ms: 60_000 }).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = rig.connect().await;
        client.write_all(b"startup").await.unwrap();
        clients.push(client);
    }
    rig.seen(|state| state.waiting == 100).await;
    drop(clients);
    rig.seen(|state| state.waiting == 0 && state.open == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_read_holds_nobody_else_up() {
    let rig = Rig::new().await;
    let mut deaf = rig.connect().await;
    // The server sends all of it back, and nobody takes it.
    let talks = tokio::spawn(async move {
        let _ = deaf.write_all(&vec![b'x'; 64 << 20]).await;
    });
    for _ in 0..20 {
        let mut client = rig.connect().await;
        assert_eq!(name(&mut client).await.unwrap(), b'1');
        client.write_all(b"y").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'y');
    }
    assert!(!talks.is_finished());
    talks.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_conversation_ends_when_both_have_said_all() {
    let rig = Rig::new().await;
    let mut client = rig.connect().await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(LIMIT, client.read_to_end(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, b"1hello");
    rig.seen(|state| state.open == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_is_held_by_nothing_needs_no_writer_and_goes_to_the_nearest_server() {
    let servers = [server(b'1').await, server(b'2').await];
    let rig = Rig::untold(20_000, RouteReads::Bounded, servers).await;
    let mut early = rig.connect_to_read().await;
    assert_eq!(name(&mut early).await.unwrap(), b'1');
    rig.point(1, 1).await;
    rig.told(Ask::Hold { hold_ms: 60_000 }).await;
    let mut held = rig.connect_to_read().await;
    assert_eq!(name(&mut held).await.unwrap(), b'1');
    // Neither is one that a switch would have to drain.
    let state = rig.seen(|state| state.reading == 2).await;
    assert_eq!((state.open, state.waiting), (0, 0));
    // The writer leaves the server that both of them read.
    rig.point(2, 2).await;
    is_cut(&mut early).await;
    is_cut(&mut held).await;
    // It is a replica from now on, and comes back: its sessions go on.
    let mut replica = rig.connect_to_read().await;
    assert_eq!(name(&mut replica).await.unwrap(), b'1');
    rig.point(3, 1).await;
    assert!(answers(&mut replica).await);
    // There and back at once.
    rig.point(4, 2).await;
    rig.point(5, 1).await;
    is_cut(&mut replica).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_nearest_server_is_gone_that_of_another_region_is_read() {
    let servers = [free_address(), server(b'2').await];
    let rig = Rig::untold(20_000, RouteReads::Strict, servers).await;
    let mut client = rig.connect_to_read().await;
    assert_eq!(name(&mut client).await.unwrap(), b'2');
    // It becomes the writer, and ceases to be it.
    rig.point(1, 2).await;
    assert!(answers(&mut client).await);
    rig.point(2, 1).await;
    is_cut(&mut client).await;
    rig.seen(|state| state.reading == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_strict_reads_a_writer_is_read_by_the_lease_only_and_a_replica_without() {
    // The other region is gone.
    let servers = [server(b'1').await, free_address()];
    let rig = Rig::untold(20_000, RouteReads::Strict, servers).await;
    // Nobody has said who the writer is: it may be this region's.
    let mut client = rig.connect_to_read().await;
    hears_nothing(&mut client).await;
    rig.point(1, 1).await;
    hears_nothing(&mut client).await;
    rig.lease(1_500).await;
    assert_eq!(name(&mut client).await.unwrap(), b'1');
    assert!(answers(&mut client).await);
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    client.write_all(b"x").await.unwrap();
    hears_nothing(&mut client).await;
    // Vouched for again: it goes on where it was.
    rig.lease(60_000).await;
    assert_eq!(client.read_u8().await.unwrap(), b'x');

    let rig = Rig::untold(20_000, RouteReads::Strict, [rig.servers[0], free_address()]).await;
    rig.point(1, 2).await;
    let mut replica = rig.connect_to_read().await;
    assert_eq!(name(&mut replica).await.unwrap(), b'1');
    assert!(answers(&mut replica).await);
    // It is the writer from now on, and nobody vouches for that.
    rig.point(2, 1).await;
    replica.write_all(b"x").await.unwrap();
    hears_nothing(&mut replica).await;
    rig.lease(60_000).await;
    assert_eq!(replica.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_readers_takes_no_room_from_writers() {
    let rig = Rig::with(2, RouteReads::Bounded).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut client = rig.connect_to_read().await;
        assert_eq!(name(&mut client).await.unwrap(), b'1');
        readers.push(client);
    }
    if let Ok(mut client) = TcpStream::connect(rig.settings.read_address.unwrap()).await {
        assert!(name(&mut client).await.is_err());
    }
    assert_eq!(name(&mut rig.connect().await).await.unwrap(), b'1');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_comes_whole_and_stops_where_the_lease_is_over() {
    let rig = Rig::with(20_000, RouteReads::Strict).await;
    rig.lease(1_000).await;
    // No two places of it look alike.
    let sent: Vec<u8> = (0_u32..16 << 20).flat_map(|number| number.to_le_bytes()).collect();
    let (mut from, mut to) = rig.connect().await.into_split();
    let says = sent.clone();
    let said = tokio::spawn(async move {
        to.write_all(&says).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut came = vec![0; 1 << 20];
    let read = tokio::time::timeout(LIMIT, from.read_exact(&mut came)).await;
    read.expect("it passes while there is a lease").unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    // What the kernel had already comes still; then nothing.
    let mut more = vec![0; 1 << 20];
    while let Ok(read) =
        tokio::time::timeout(Duration::from_millis(300), from.read(&mut more)).await
    {
        let read = read.unwrap();
        assert!(read > 0, "it ended");
        came.extend_from_slice(&more[..read]);
    }
    assert!(came.len() < sent.len(), "all of it passed");
    rig.lease(60_000).await;
    let rest = tokio::time::timeout(LIMIT, from.read_to_end(&mut came)).await;
    rest.expect("it goes on").unwrap();
    said.await.unwrap();
    assert_eq!(came[0], b'1');
    assert!(came[1..] == sent, "something came otherwise than it was sent");
    rig.seen(|state| state.open == 0).await;
}

/// What a front is told of its client: from where it came, and whereto.
async fn told_of(front: &mut TcpStream) -> (SocketAddr, SocketAddr) {
    let mut fixed = [0; 16];
    front.read_exact(&mut fixed).await.unwrap();
    assert_eq!(&fixed[..13], b"\r\n\r\n\0\r\nQUIT\n\x21");
    let mut addresses = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    front.read_exact(&mut addresses).await.unwrap();
    let (ips, ports) = addresses.split_at(addresses.len() - 4);
    let ip = |octets: &[u8]| match fixed[13] {
        0x11 => IpAddr::from(<[u8; 4]>::try_from(octets).unwrap()),
        0x21 => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
        other => panic!("no family is {other:#x}"),
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let (from, to) = ips.split_at(ips.len() / 2);
    (SocketAddr::new(ip(from), port(0)), SocketAddr::new(ip(to), port(2)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_is_told_who_the_client_is_before_its_first_byte_on_both_ports_and_families() {
    for loopback in ["127.0.0.1", "::1"] {
        let ip: IpAddr = loopback.parse().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let Ok(free) = std::net::TcpListener::bind((ip, 0)) else {
            skipped(&format!("a client by {loopback}"), "this machine has no such address");
            continue;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        let read = std::net::TcpListener::bind((ip, 0)).unwrap();
        settings.address = free.local_addr().unwrap();
        settings.read_address = Some(read.local_addr().unwrap());
        drop((free, read));
        settings.proxy_protocol = ProxyProtocol::V2;
        settings.fronts = [(region(1), front.local_addr().unwrap())].into();
        // Nobody is at the nodes themselves.
        let servers = [free_address(), free_address()];
        let running = start(&settings, servers, 100).await;
        let point = Ask::Point { epoch: Epoch::read(1), to: region(1), address: servers[0] };
        ask(&socket(&settings), &point, LIMIT).await.unwrap();
        for port in [settings.address, settings.read_address.unwrap()] {
            let mut client = TcpStream::connect(port).await.unwrap();
            client.write_all(b"x").await.unwrap();
            let mut accepted = front.accept().await.unwrap().0;
            assert_eq!(told_of(&mut accepted).await, (client.local_addr().unwrap(), port));
            assert_eq!(accepted.read_u8().await.unwrap(), b'x');
            accepted.write_all(b"y").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'y');
        }
        running.abort();
    }
}
