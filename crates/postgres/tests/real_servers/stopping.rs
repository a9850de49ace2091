//! A stop ends within its limit, whatever the standby does.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tier0_core::order::{Fact, Order, Outcome};

use crate::harness::*;
use crate::scenario;

scenario!(a_frozen_receiver_does_not_hold_the_stop, {
    let pair = Pair::following().await;
    let receiver = pair.b.process("walreceiver").await;
    kill_process(receiver, Signal::STOP).unwrap();
    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    let began = Instant::now();
    let outcome = pair.a.order(Order::PostgresStop, Duration::from_millis(500)).await;
    let Outcome::Done { fact: Fact::Stopped { clean_at, .. } } = outcome else {
        panic!("{outcome}")
    };
    println!("{:32} {:>7.1} ms  clean: {}", "stop", milliseconds(began), clean_at.is_some());
    // The promise is a bound: the limit, and 2 s for each of the harder means.
    assert!(began.elapsed() < Duration::from_secs(8));
    kill_process(receiver, Signal::CONT).unwrap();
});

scenario!(a_frozen_server_is_killed_with_all_its_children, {
    let pair = Pair::exposed().await;
    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    let session = pair.a.process("client backend").await;
    kill_process(session, Signal::STOP).unwrap();
    kill_process(pair.a.postmaster().unwrap(), Signal::STOP).unwrap();
    let outcome = pair.a.order(Order::PostgresStop, Duration::from_millis(200)).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    assert!(pair.a.postmaster().is_none());
    let mut gone = false;
    for _ in 0..100 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", session.as_raw_nonzero()));
        gone = stat.is_err() || stat.is_ok_and(|text| text.contains(") Z"));
        if gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone, "a session outlived its server");
    pair.a.done(Order::PostgresStart { names: None }).await;
});

scenario!(what_a_dead_postmaster_left_does_not_hold_the_next_start, {
    let pair = Pair::exposed().await;
    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    let session = pair.a.process("client backend").await;
    kill_process(session, Signal::STOP).unwrap();
    pair.a.kill_postmaster();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(std::path::Path::new(&format!("/proc/{}", session.as_raw_nonzero())).exists());
    // As a child that was frozen before it had a title of its own.
    let mut untitled = std::process::Command::new("sleep");
    std::os::unix::process::CommandExt::arg0(&mut untitled, "/usr/lib/postgresql/15/bin/postgres");
    let mut untitled = untitled.arg("600").current_dir(pair.a.data()).spawn().unwrap();
    let child = rustix::process::Pid::from_child(&untitled);
    kill_process(child, Signal::STOP).unwrap();
    pair.a.done(Order::PostgresStart { names: None }).await;
    assert_eq!(pair.a.rows().await, 1);
    let ended = untitled.try_wait().unwrap();
    let _ = untitled.kill();
    assert!(ended.is_some(), "it would have held the port");
});
