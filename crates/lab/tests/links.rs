//! The links between sites, measured from inside: what arrives, how late, how much of it, and that
//! nobody is told of what does not. Nothing of a stack runs here.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tier0_lab::network::End;
use tier0_lab::network::control::{LaneView, Order, What, ask};
use tier0_lab::network::link::between;
use tier0_lab::network::namespaces;
use tier0_lab::network::shape::{Change, Flow};
use tier0_lab::skipped::skipped;

/// Numbers that no lab of people or of other tests takes.
const INSTANCE: u8 = 190;
const QUIET: Duration = Duration::from_millis(300);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The ends and the links of a lab without anything else.
struct Links {
    directory: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    _alone: MutexGuard<'static, ()>,
}

impl Links {
    /// Make them; `None` where this machine cannot.
    fn up(test: &str) -> Option<Links> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = namespaces::unavailable() {
            skipped(test, &why);
            return None;
        }
        namespaces::create(INSTANCE).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let path: PathBuf = directory.path().to_owned();
        let links = runtime.spawn(async move { tier0_lab::run_links(&path, INSTANCE, 7).await });
        let deadline = Instant::now() + Duration::from_secs(20);
        while ask(directory.path(), &[]).is_err() {
            assert!(Instant::now() < deadline && !links.is_finished(), "the links do not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Links { directory, runtime: Some(runtime), _alone: alone })
    }

    fn change(&self, from: End, to: End, change: Change) {
        let order = Order { lanes: vec![(from, to)], what: What::Change(change) };
        ask(self.directory.path(), &[order]).unwrap();
    }

    fn change_both(&self, one: End, other: End, change: Change) {
        self.change(one, other, change);
        self.change(other, one, change);
    }

    fn view(&self, from: End, to: End) -> LaneView {
        let views = ask(self.directory.path(), &[]).unwrap();
        *views.iter().find(|view| (view.from, view.to) == (from, to)).unwrap()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        namespaces::remove(INSTANCE).unwrap();
    }
}

fn at<T: Send>(end: End, act: impl FnOnce() -> T + Send) -> T {
    namespaces::within(end.namespace(INSTANCE).as_deref(), act).unwrap()
}

fn socket(end: End) -> UdpSocket {
    let socket = at(end, || UdpSocket::bind((end.address(INSTANCE), 0))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Answers whatever comes, until nothing has come for five seconds.
fn echo(end: End) -> SocketAddr {
    let socket = socket(end);
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

/// The time there and back of each of some packets.
fn round_trips(from: &UdpSocket, to: SocketAddr, count: usize) -> Vec<Duration> {
    let mut buffer = [0; 2_000];
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let sent = Instant::now();
            from.send_to(b"there", to).unwrap();
            from.recv_from(&mut buffer).unwrap();
            sent.elapsed()
        })
        .collect();
    times.sort();
    times
}

/// Whether a packet arrives.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    to.set_read_timeout(Some(QUIET)).unwrap();
    from.send_to(b"one", to.local_addr().unwrap()).unwrap();
    to.recv_from(&mut [0; 100]).is_ok()
}

fn delay(time: &str, jitter: &str) -> Change {
    Change { delay: time.parse().ok(), jitter: jitter.parse().ok(), ..Change::default() }
}

#[test]
fn round_trips_take_what_was_said_between_every_two_ends() {
    let Some(links) = Links::up("links: round trips") else { return };
    for (from, to) in
        [(End::Region1, End::Region2), (End::Clients, End::Region1), (End::Witness, End::Region2)]
    {
        let (socket, server) = (socket(from), echo(to));
        let plain = round_trips(&socket, server, 50);
        links.change_both(from, to, delay("40ms", "0ms"));
        let slow = round_trips(&socket, server, 10);
        links.change_both(from, to, delay("40ms", "10ms"));
        let varied = round_trips(&socket, server, 40);
        println!(
            "{} - {}: plain {:?} median; with 40 ms each way {:?} to {:?}; ± 10 ms {:?} to {:?}",
            from.name(),
            to.name(),
            plain[25],
            slow[0],
            slow[9],
            varied[0],
            varied[39]
        );
        // A busy machine makes things later, never earlier.
        assert!(slow[0] >= Duration::from_millis(80));
        assert!(plain[25] < Duration::from_millis(80), "no quicker without delay: {plain:?}");
        assert!(varied[0] >= Duration::from_millis(60) && varied[0] < Duration::from_millis(80));
        assert!(varied[39] - varied[0] >= Duration::from_millis(10), "all alike: {varied:?}");
    }
}

#[test]
fn as_many_packets_are_lost_as_was_said() {
    let Some(links) = Links::up("links: loss") else { return };
    let (from, to) = (socket(End::Region1), socket(End::Region2));
    links.change(
        End::Region1,
        End::Region2,
        Change { loss: "2%".parse().ok(), ..Change::default() },
    );
    to.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut sent, mut arrived) = (0_u64, 0_u64);
    let mut buffer = [0; 100];
    // In small groups, so that no socket overflows.
    for _ in 0..60 {
        for _ in 0..50 {
            from.send_to(b"one", to.local_addr().unwrap()).unwrap();
            sent += 1;
        }
        while to.recv_from(&mut buffer).is_ok() {
            arrived += 1;
        }
    }
    let counts = links.view(End::Region1, End::Region2).counts;
    println!("{sent} sent, {arrived} arrived, the link says that it lost {}", counts.lost);
    assert_eq!(sent - arrived, counts.lost);
    // 60 are expected, and 7.7 is the standard deviation.
    assert!((20..100).contains(&counts.lost), "{counts:?}");
}

#[test]
fn a_cut_is_silent_and_can_be_one_way() {
    let Some(links) = Links::up("links: cuts") else { return };
    let (one, other) = (socket(End::Region1), socket(End::Region2));
    let clients = socket(End::Clients);
    let cut = Change::flow(Flow::Cut);
    links.change(End::Region1, End::Region2, cut);
    assert!(!arrives(&one, &other), "it passes although it is cut");
    assert!(arrives(&other, &one), "the way back is cut as well");
    assert!(arrives(&clients, &other), "another link is cut as well");
    assert_eq!(links.view(End::Region1, End::Region2).counts.cut, 1);
    links.change(End::Region1, End::Region2, Change::flow(Flow::Open));
    assert!(arrives(&one, &other), "it does not pass again");

    // Nothing is refused: who connects to a site that is cut off waits.
    let listener = at(End::Region1, || TcpListener::bind((End::Region1.address(INSTANCE), 0)));
    let address = listener.as_ref().unwrap().local_addr().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    let closed = SocketAddr::new(address.ip(), 1);
    let refused = TcpStream::connect_timeout(&closed, Duration::from_secs(5)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let order = Order { lanes: between(End::Region1, None).unwrap(), what: What::Change(cut) };
    assert_eq!(order.lanes.len(), 6);
    ask(links.directory.path(), std::slice::from_ref(&order)).unwrap();
    for target in [address, closed] {
        let silent = TcpStream::connect_timeout(&target, QUIET).unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::TimedOut, "{silent}");
    }
    // A site that is cut off still reaches itself.
    at(End::Region1, || TcpStream::connect_timeout(&address, Duration::from_secs(5))).unwrap();
    ask(links.directory.path(), &[Order { what: What::Restore, ..order }]).unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
}

#[test]
fn no_more_fits_through_than_was_said() {
    let Some(links) = Links::up("links: rate") else { return };
    let listener = at(End::Region2, || TcpListener::bind((End::Region2.address(INSTANCE), 0)));
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    links.change(
        End::Region1,
        End::Region2,
        Change { rate: "16mbit".parse().ok(), ..Change::default() },
    );
    let received = Arc::new(Mutex::new(0));
    let count = received.clone();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let copied = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        *count.lock().unwrap() = copied;
    });
    let begun = Instant::now();
    let mut stream = at(End::Region1, || TcpStream::connect(address)).unwrap();
    std::io::Write::write_all(&mut stream, &vec![7; 1 << 20]).unwrap();
    drop(stream);
    reader.join().unwrap();
    let time = begun.elapsed();
    println!("a MiB through 16 Mbit/s took {time:?}, 0.54 s with headers is the least");
    assert_eq!(*received.lock().unwrap(), 1 << 20);
    assert!(time >= Duration::from_millis(500), "{time:?}");
}

#[test]
fn nothing_stays_behind() {
    let Some(links) = Links::up("links: removal") else { return };
    assert_eq!(namespaces::existing(INSTANCE).len(), 3);
    let address = End::Clients.address(INSTANCE);
    assert!(namespaces::has_address(address));
    // Somebody's process keeps a namespace from being taken for a leftover.
    let mut sleeper =
        at(End::Witness, || std::process::Command::new("sleep").arg("60").spawn()).unwrap();
    assert_eq!(namespaces::remove_unused(INSTANCE).unwrap(), 0);
    let refused = namespaces::create(INSTANCE).unwrap_err().to_string();
    assert!(refused.contains("another lab 190 runs"), "{refused}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    drop(links);
    assert_eq!(namespaces::existing(INSTANCE), Vec::<String>::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    while namespaces::has_address(address) {
        assert!(Instant::now() < deadline, "the device of the clients is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
