//! Ten minutes of what looks a little like death and is none: a far and lossy link, a machine that is
//! overloaded. The stack is armed, and its writer is not moved once.
//!
//! They run with `TIER0_LONG`; `TIER0_FALSE_ALARM_SECONDS` makes them shorter.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tier0_lab::ledger::WritePath;
use tier0_lab::network::namespaces;
use tier0_lab::skipped::skipped;

use crate::automatic::set;
use crate::network::epoch;
use crate::stack::{Stack, long, until};

/// How long, if at all.
fn lasting() -> Option<Duration> {
    let seconds = std::env::var("TIER0_FALSE_ALARM_SECONDS").ok();
    match seconds {
        Some(seconds) => Some(Duration::from_secs(seconds.parse().unwrap())),
        None => long().then_some(Duration::from_secs(600)),
    }
}

/// Look on while it lasts: armed, and the writer stays.
async fn nothing_moves(stack: &Stack, lasting: Duration) {
    let before = epoch(stack).await;
    let began = Instant::now();
    let mut exposed = 0;
    let mut looks = 0;
    while began.elapsed() < lasting {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // The API is asked over what is being tried: an answer may be late.
        let status = until(Duration::from_secs(30), async || stack.api().status().await);
        let status = status.await.unwrap();
        assert_eq!(status["automatic"]["mode"], "armed", "{status:#}");
        assert_eq!(status["epoch"].as_u64(), Some(before), "the writer was moved: {status:#}");
        exposed += u32::from(status["protection"] == "exposed");
        looks += 1;
    }
    let status = stack.api().status().await.unwrap();
    println!("{looks} looks in {:?}, {exposed} of them exposed", began.elapsed());
    println!("near miss: {}", status["automatic"]["near_miss"]);
    println!("detection: {:#}", status["detection"]);
    let history = stack.api().read("/operations?limit=200").await.unwrap();
    let all = history.body["operations"].as_array().unwrap();
    let of = |kind: &str| all.iter().filter(|one| one["kind"] == kind).count();
    println!("joins {}, leaves {}, rejoins {}", of("join"), of("leave"), of("rejoin"));
    let moves = |one: &&Value| one["kind"] == "failover" && one["code"] != "held-back";
    assert_eq!(all.iter().filter(moves).count(), 0, "{all:#?}");
    assert!(status["detection"]["round_trips"]["region2"]["count"].as_u64().unwrap() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_80_ms_that_loses_2_percent_moves_nothing() {
    let Some(lasting) = lasting() else { return };
    if let Some(why) = namespaces::unavailable() {
        return skipped("false alarms: a far and lossy link", &why);
    }
    let mut stack = Stack::up_with(&["--netns"]);
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    for (from, to) in [("region1", "region2"), ("region1", "witness"), ("region2", "witness")] {
        let mut link = stack.lab("link");
        link.args([from, to, "--delay", "40ms", "--jitter", "10ms", "--loss", "2%"]);
        let output = link.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    nothing_moves(&stack, lasting).await;
    let status = stack.api().status().await.unwrap();
    let trips = &status["detection"]["round_trips"]["region2"];
    assert!(trips["p50_ms"].as_f64().unwrap() > 60.0, "the link was not far: {trips}");
    assert!(stack.lab("link").args(["region1", "--restore"]).status().unwrap().success());
    assert!(stack.lab("link").args(["region2", "--restore"]).status().unwrap().success());
    stack.api().protected(Duration::from_secs(60)).await.unwrap();
    run.goes_on().await;
    run.lost_nothing(&[WritePath::Postgres, WritePath::RedisWait]).await;
}

/// Processes that do nothing but compute, ended with this value.
struct Busy(Vec<Child>);

impl Busy {
    fn loops(count: usize) -> Busy {
        let spin = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().unwrap()
        };
        Busy((0..count).map(|_| spin()).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A thread that writes a little and flushes it to the disk, again and again.
fn flush_until(ended: Arc<AtomicBool>, path: std::path::PathBuf) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).unwrap();
        let mut flushed = 0;
        while !ended.load(Ordering::Relaxed) {
            file.write_all(&[7; 4_096]).unwrap();
            file.sync_all().unwrap();
            flushed += 1;
            if flushed % 10_000 == 0 {
                file.set_len(0).unwrap();
            }
        }
        flushed
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_overloaded_moves_nothing() {
    let Some(lasting) = lasting() else { return };
    let mut stack = Stack::up();
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let busy = Busy::loops(8);
    let ended = Arc::new(AtomicBool::new(false));
    let flushing = flush_until(Arc::clone(&ended), stack.directory.join("flushed"));
    nothing_moves(&stack, lasting).await;
    ended.store(true, Ordering::Relaxed);
    drop(busy);
    println!("{} flushes beside it", flushing.join().unwrap());
    stack.api().protected(Duration::from_secs(60)).await.unwrap();
    run.goes_on().await;
    run.lost_nothing(&WritePath::ALL).await;
}
