//! `tier0 lab`: beside foreign servers, twice, and killed halfway.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tier0_lab::account::Account;
use tier0_lab::processes;

use crate::stack::{RECOVERY, Stack, shared};

/// Listen on the wildcard address, or, where somebody has that port on any address already, on
/// the addresses that the stack would take.
fn occupy(instance: u8, port: u16) -> Vec<TcpListener> {
    if let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        println!("0.0.0.0:{port} is taken by this test");
        return vec![listener];
    }
    println!("0.0.0.0:{port} is taken in part: this test takes the stack's own addresses");
    (1..=3)
        .filter_map(|site| {
            let address = Ipv4Addr::new(127, 10 + instance, site, 1);
            TcpListener::bind((IpAddr::V4(address), port)).ok()
        })
        .collect()
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find(|(of, _)| *of == name)?.1.parse().ok()
}

#[tokio::test]
async fn a_stack_finds_other_ports_beside_foreign_servers_and_counts_its_failovers() {
    let stack = Stack::reserve();
    let ports = [5432, 6379, 26379, 8000, 8003];
    let foreign: Vec<TcpListener> =
        ports.into_iter().flat_map(|port| occupy(stack.instance, port)).collect();
    let output = stack.lab("up").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for process in stack.look().processes {
        assert!(process.pid.is_some(), "{} does not run", process.name);
        assert!(!ports.contains(&process.port), "{} has port {}", process.name, process.port);
    }
    assert!(said.contains("is taken, uses"), "{said}");

    let api = stack.api();
    let before = api.get("/metrics").await;
    assert!(before.kind.starts_with("application/openmetrics-text"), "{}", before.kind);
    assert!(before.text.ends_with("# EOF\n"));
    assert_eq!(value(&before.text, "failover_total"), Some(0.0), "{}", before.text);
    api.failover("region2").await.succeeds();
    let after = api.get("/metrics").await.text;
    assert_eq!(value(&after, "failover_total"), Some(1.0), "{after}");
    assert!(
        value(&after, "failover_duration_seconds{step=\"total\"}").is_some_and(|time| time > 0.0),
        "{after}"
    );
    assert!(value(&after, "failover_last_timestamp").is_some_and(|time| time > 1.7e9), "{after}");
    api.protected(RECOVERY).await.unwrap();
    // A refusal is no failover.
    api.failover("region2").await.refuses(409, "already-writer");
    assert_eq!(value(&api.get("/metrics").await.text, "failover_total"), Some(1.0));
    drop(foreign);
}

#[tokio::test]
async fn up_a_second_time_changes_nothing() {
    let stack = shared().await;
    let pids = |stack: &Stack| -> Vec<(String, Option<i32>)> {
        stack.look().processes.into_iter().map(|one| (one.name, one.pid)).collect()
    };
    let before = pids(&stack);
    let output = stack.lab("up").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is up already"));
    assert_eq!(before, pids(&stack));
}

#[test]
fn down_leaves_nothing_running_also_when_up_was_killed_halfway() {
    let uid = Account::unprivileged().unwrap().uid;
    let stack = Stack::reserve();
    for enough in [0, 1, 2, 4, 8, 9, 12, 16] {
        let mut up = stack.lab("up").stderr(std::process::Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let running = loop {
            let running = processes::of_lab(&stack.directory, uid).len();
            if running >= enough {
                break running;
            }
            assert!(Instant::now() < deadline, "there never were {enough} processes");
            std::thread::sleep(Duration::from_millis(2));
        };
        up.kill().unwrap();
        up.wait().unwrap();
        let output = stack.lab("down").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "at {running} processes: {said}");
        // What a child started just then would show itself a moment later.
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            let left = processes::of_lab(&stack.directory, uid);
            assert!(left.is_empty(), "up killed at {running} processes left {left:?}");
            std::thread::sleep(Duration::from_millis(30));
        }
        assert!(!stack.directory.exists(), "up killed at {running} processes left its files");
        println!("up killed when {running} processes ran");
    }
}

#[test]
fn a_demo_that_is_told_to_end_takes_everything_down() {
    let uid = Account::unprivileged().unwrap().uid;
    let stack = Stack::reserve();
    for (enough, signal) in [(2, Signal::INT), (9, Signal::TERM), (12, Signal::HUP)] {
        let mut demo =
            stack.lab("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while processes::of_lab(&stack.directory, uid).len() < enough {
            assert!(Instant::now() < deadline, "there never were {enough} processes");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Like a terminal that was closed: from here on nothing can be said to anybody.
        drop((demo.stdout.take(), demo.stderr.take()));
        let pid = Pid::from_raw(i32::try_from(demo.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = demo.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(130), None), "on {signal:?}");
        let left = processes::of_lab(&stack.directory, uid);
        assert!(left.is_empty(), "{signal:?} left {left:?}");
        assert!(!stack.directory.exists(), "{signal:?} left its files");
    }
}
