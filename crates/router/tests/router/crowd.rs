//! What takes a router of its own, as a process: five thousand clients that are held through a switch,
//! peers that vanish without a word, and a measurement of large answers. The process is this program,
//! run again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tier0_config::RouteSettings;
use tier0_core::words::Epoch;
use tier0_route::control::{Answer, Ask, RouterState, ask, socket};
use tier0_router::Way;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{self, free_address, skipped};

const LIMIT: Duration = Duration::from_secs(60);
/// Where the router of its own listens, and its directory.
const ADDRESS: &str = "TIER0_TEST_ADDRESS";
const DIRECTORY: &str = "TIER0_TEST_DIRECTORY";
/// The file that is there once peers that vanished were given up.
const SEEN: &str = "TIER0_TEST_SEEN";

fn settings(address: SocketAddr, directory: &Path) -> RouteSettings {
    RouteSettings { address, read_address: None, ..support::settings(directory) }
}

/// As many files as may be had; how many that is.
fn raise_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The router's process, and not a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the others start it"]
async fn a_router_of_its_own() {
    raise_files();
    let address = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let ways = [Way { route: settings(address, &directory), nodes: BTreeMap::new() }];
    tier0_router::serve(&ways, 20_000, std::future::pending()).await.unwrap();
}

struct Own {
    process: Child,
    settings: RouteSettings,
    _directory: tempfile::TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Own {
    fn start() -> Own {
        let (address, directory) = (free_address(), tempfile::tempdir().unwrap());
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crowd::a_router_of_its_own", "--ignored"])
            .env(ADDRESS, address.to_string())
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let settings = settings(address, directory.path());
        Own { process, settings, _directory: directory }
    }

    async fn told(&self, what: Ask) -> RouterState {
        let deadline = Instant::now() + LIMIT;
        loop {
            match ask(&socket(&self.settings), &what, LIMIT).await {
                Ok(Answer::State(state)) => return state,
                // It is on its way up.
                Err(error) => assert!(Instant::now() < deadline, "{what:?}: {error}"),
                Ok(other) => panic!("{what:?}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn point(&self, epoch: u64, to: &str, address: SocketAddr) {
        let (epoch, to) = (Epoch::read(epoch), to.parse().unwrap());
        self.told(Ask::Point { epoch, to, address }).await;
    }

    async fn seen(&self, wanted: impl Fn(&RouterState) -> bool) -> RouterState {
        support::seen(LIMIT, async || self.told(Ask::Look).await, wanted).await
    }

    /// What it has in memory, in KiB.
    fn memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A server that answers each client with the client's own number, and notes them in the order in
/// which they were connected.
async fn server() -> (SocketAddr, Arc<Mutex<Vec<(usize, u32)>>>) {
    // With room for all: who finds none is tried again, and is out of line.
    let listener = tier0_listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&came);
    tokio::spawn(async move {
        for place in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                while let Ok(number) = stream.read_u32().await {
                    noted.lock().unwrap().push((place, number));
                    stream.write_u32(number).await.unwrap();
                }
            });
        }
    });
    (address, came)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_are_held_through_a_switch_and_go_on_in_the_order_in_which_they_came() {
    // Each has two here, its own end and that of the server, and two in the router.
    let room = (raise_files().saturating_sub(500) / 2) as usize;
    let own = Own::start();
    let ((first, came_first), (second, came)) = (server().await, server().await);
    own.point(1, "region1", first).await;
    own.told(Ask::Hold { hold_ms: 600_000 }).await;
    let before = own.memory_kib();
    let mut clients = Vec::new();
    let began = Instant::now();
    for number in 0..room.min(5_000) {
        // The first of them gives up after twenty seconds.
        if began.elapsed() > Duration::from_secs(10) {
            break;
        }
        let mut client = TcpStream::connect(own.settings.address).await.unwrap();
        client.write_u32(number as u32).await.unwrap();
        clients.push(client);
        if number % 1_000 == 999 {
            // The queue in front of the port has its own limit, which is not what is tested.
            own.seen(|state| state.waiting as usize > number).await;
        }
    }
    let count = clients.len();
    if count < 5_000 {
        let missing = 5_000 - count;
        skipped("5,000 held clients", &format!("{missing} less: room for {room}, and too slow"));
    }
    let state = own.seen(|state| state.waiting as usize == count).await;
    assert_eq!(state.open, 0);
    let each = own.memory_kib().saturating_sub(before) * 1_024 / count as u64;
    // Task, socket, place in line, timers; no buffer.
    assert!(each < 16 * 1_024, "a client that is held takes {each} bytes");
    own.point(2, "region2", second).await;
    let began = Instant::now();
    own.told(Ask::Release).await;
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = tokio::time::timeout(LIMIT, client.read_u32()).await.unwrap();
        assert_eq!(answer.unwrap(), number as u32);
    }
    println!("{count} held, {each} bytes each; all went on within {:?}", began.elapsed());
    assert_eq!(own.seen(|state| state.open as usize == count).await.waiting, 0);
    assert!(came_first.lock().unwrap().is_empty(), "one came to the old server");
    let mut came = came.lock().unwrap().clone();
    came.sort_unstable();
    assert_eq!(came.len(), count);
    // 64 are connected at once, and among them there is no order; and a thread of the router that gets no
    // processor for a while is overtaken by what the others serve meanwhile.
    let mut out_of_line: Vec<usize> =
        came.iter().map(|(place, number)| place.abs_diff(*number as usize)).collect();
    out_of_line.sort_unstable();
    let (usual, most) = (out_of_line[count / 2], out_of_line[count - 1]);
    println!("half came at most {usual} places before or after their turn, one {most}");
    assert!(usual <= count / 20, "half came more than {usual} places before or after their turn");
    let fifth = (count / 5) as u32;
    let late = came.iter().rev().take(count / 5).filter(|(_, number)| *number < fifth).count();
    assert_eq!(late, 0, "of the first fifth some came among the last");
}

/// In a network of its own, whose only device goes down: no end, no reset, nothing comes any more.
#[test]
fn peers_that_vanish_without_a_word_are_given_up() {
    let own = std::env::current_exe().unwrap();
    let inside = ["--exact", "crowd::in_a_network_that_goes_down", "--ignored", "--nocapture"];
    let made = Command::new("unshare").args(["--net", "true"]).status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("peers that vanish", "only root can make a network");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let seen = directory.path().join("seen");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(own).args(inside).env(SEEN, &seen);
    let status = command.status().unwrap();
    assert!(status.success() && seen.exists(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only in a network of its own, where another starts it"]
async fn in_a_network_that_goes_down() {
    let device = |state| {
        let set = Command::new("ip").args(["link", "set", "lo", state]).status();
        assert!(set.unwrap().success());
    };
    device("up");
    let own = Own::start();
    let (address, _) = server().await;
    own.point(1, "region1", address).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = TcpStream::connect(own.settings.address).await.unwrap();
        client.write_u32(number).await.unwrap();
        assert_eq!(client.read_u32().await.unwrap(), number);
        clients.push(client);
    }
    own.seen(|state| state.open == 20).await;
    device("down");
    let began = Instant::now();
    // Half of them were in the middle of something.
    for client in &mut clients[..10] {
        client.write_u32(7).await.unwrap();
    }
    own.seen(|state| state.open == 0).await;
    let took = began.elapsed();
    println!("given up after {took:?}");
    assert!(took > Duration::from_secs(5), "they were given up by something else: {took:?}");
    std::fs::write(std::env::var_os(SEEN).unwrap(), "").unwrap();
}

/// Seconds of processor that a process has had.
fn processor(process: &Child) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let after = text.rsplit_once(") ").unwrap().1;
    let ticks = |place: usize| after.split(' ').nth(place).unwrap().parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// A measurement: answers of several sizes through the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn how_fast_answers_pass() {
    let listener = tier0_listen::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let answer = vec![b'x'; 64 << 20];
                while let Ok(size) = stream.read_u32().await {
                    stream.write_all(&answer[..size as usize]).await.unwrap();
                }
            });
        }
    });
    let own = Own::start();
    own.point(1, "region1", address).await;
    for (clients, size, total) in [
        (1_usize, 64, 4 << 20),
        (1, 16 << 10, 512 << 20),
        (1, 64 << 10, 1 << 30),
        (1, 1 << 20, 2 << 30),
        (1, 64 << 20, 4_u64 << 30),
        (8, 1 << 20, 4 << 30),
    ] {
        let (began, before) = (Instant::now(), processor(&own.process));
        let each = total / size as u64 / clients as u64;
        let all = (0..clients).map(|_| async {
            let mut client = TcpStream::connect(own.settings.address).await.unwrap();
            let mut answer = vec![0; 256 << 10];
            for _ in 0..each {
                client.write_u32(size as u32).await.unwrap();
                let mut left = size;
                while left > 0 {
                    let most = left.min(answer.len());
                    left -= client.read(&mut answer[..most]).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(all).await;
        let (took, cpu) = (began.elapsed().as_secs_f64(), processor(&own.process) - before);
        let mib = total as f64 / f64::from(1 << 20);
        println!(
            "{clients} x {size}: {:.0} MiB/s, {:.0} ms of processor for 1 GiB",
            mib / took,
            cpu * 1e3 * 1024.0 / mib
        );
    }
}
