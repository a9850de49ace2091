//! Servers that die, freeze, come back with other data, or lose theirs.

#![allow(clippy::unwrap_used)]

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use harness::Lab;
use rustix::process::Signal;
use tier0_config::RedisMode;
use tier0_core::observe::{ProcessState, RedisRole};
use tier0_core::order::{Fact, Order, Outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_masters_own_data_is_kept_and_counted() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    lab.write_that_arrives("shared").await;
    // The replica hears nothing more, and the master goes on alone.
    lab.signal(1, Signal::STOP);
    for n in 0..200 {
        lab.ask_node(0, &["SET", &format!("alone{n}"), "x"]).await.unwrap();
    }
    lab.view(0).await;
    let exit = tokio::spawn({
        let node = lab.nodes[0].clone();
        async move { node.wait_for_exit().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let killed = Instant::now();
    lab.kill(0);
    exit.await.unwrap();
    println!("exit reported {:?} after kill", killed.elapsed());
    lab.assert_process(&lab.view(0).await, ProcessState::Stopped);
    // What the master sent before it died is still in the socket; that much is not lost.
    lab.signal(1, Signal::CONT);
    tokio::time::sleep(Duration::from_millis(100)).await;
    lab.done(1, Order::RedisPromote { accept_loss: false }).await;
    assert_eq!(lab.view(1).await.min_replicas_to_write, Some(0));
    let followed = lab.done(0, lab.follow(1, 0)).await;
    println!("{followed:?}");
    let Fact::Followed { method, kept_at: Some(kept_at), .. } = followed else { panic!() };
    assert_eq!(method, "full");
    assert!(std::path::Path::new(&kept_at).join("appendonlydir").is_dir());
    assert_eq!(lab.diverged(0).len(), 1);
    // Again: nothing more to keep.
    lab.done(0, lab.follow(1, 0)).await;
    lab.kill(0);
    let again = lab.done(0, lab.follow(1, 0)).await;
    assert!(matches!(again, Fact::Followed { diverged_bytes: 0, kept_at: None, .. }), "{again:?}");
    assert_eq!(lab.diverged(0).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_only_the_dead_master_had_are_reported() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    lab.write_that_arrives("shared").await;
    // The link is cut for good, then the master goes on alone.
    let nobody = Order::RedisPromote { accept_loss: true };
    lab.done(1, nobody).await;
    for n in 0..200 {
        lab.ask_node(0, &["SET", &format!("alone{n}"), "x"]).await.unwrap();
    }
    let (old, new) = (lab.view(0).await, lab.view(1).await);
    lab.kill(0);
    let expected = old.offset.unwrap() - (new.second.unwrap().offset - 1);
    let followed = lab.done(0, lab.follow(1, 0)).await;
    println!("{followed:?}, expected {expected}");
    let Fact::Followed { diverged_bytes, kept_at: Some(kept_at), .. } = followed else { panic!() };
    assert_eq!(diverged_bytes, expected);
    // What is kept is as private as the data directory it comes from.
    let mode = std::fs::metadata(&kept_at).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    assert!(std::path::Path::new(&kept_at).join("appendonlydir").is_dir());
    assert_eq!(lab.view(0).await.keys, lab.view(1).await.keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_masters_own_data_is_kept_as_a_snapshot() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    lab.write_that_arrives("shared").await;
    lab.done(1, Order::RedisPromote { accept_loss: true }).await;
    for n in 0..50 {
        lab.ask_node(0, &["SET", &format!("alone{n}"), "x"]).await.unwrap();
    }
    let followed = lab.done(0, lab.follow(1, 0)).await;
    println!("{followed:?}");
    let Fact::Followed { method, diverged_bytes, kept_at: Some(kept_at) } = followed else {
        panic!()
    };
    assert_eq!(method, "full");
    assert!(diverged_bytes > 50 * 20);
    let snapshot = std::path::Path::new(&kept_at).join("dump.rdb");
    let kept = std::fs::read(snapshot).unwrap();
    assert!(kept.windows(7).any(|bytes| bytes == b"alone49"));
    assert_eq!(lab.view(0).await.keys, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_is_never_started_over_lost_data() {
    let lab = Lab::new(0, RedisMode::Vote);
    lab.assert_process(&lab.view(0).await, ProcessState::NoData);
    assert_eq!(lab.refused(0, Order::RedisStart { first: false }).await, "redis-data-lost");
    lab.done(0, Order::RedisStart { first: true }).await;
    lab.done(0, Order::RedisStart { first: true }).await;
    lab.ask_node(0, &["SET", "a", "1"]).await.unwrap();
    let begun = Instant::now();
    lab.kill(0);
    lab.assert_process(&lab.view(0).await, ProcessState::Stopped);
    lab.done(0, Order::RedisStart { first: false }).await;
    println!("killed, started and opened again: {:?}", begun.elapsed());
    let view = lab.view(0).await;
    assert_eq!((view.keys, view.min_replicas_to_write), (1, Some(0)));
    lab.kill(0);
    std::fs::remove_dir_all(lab.data_directory(0).join("appendonlydir")).unwrap();
    let _ = std::fs::remove_file(lab.data_directory(0).join("dump.rdb"));
    assert_eq!(lab.refused(0, Order::RedisStart { first: false }).await, "redis-data-lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_an_append_only_file_is_loaded() {
    let lab = Lab::new(0, RedisMode::Vote);
    lab.done(0, Order::RedisStart { first: true }).await;
    lab.ask_node(0, &["SET", "a", "1"]).await.unwrap();
    lab.ask_node(0, &["SAVE"]).await.unwrap();
    lab.kill(0);
    std::fs::remove_dir_all(lab.data_directory(0).join("appendonlydir")).unwrap();
    lab.done(0, Order::RedisStart { first: false }).await;
    assert_eq!(lab.view(0).await.keys, 1);
    let appending = lab.ask_node(0, &["CONFIG", "GET", "appendonly"]).await.unwrap();
    let appending: (String, String) = redis::from_redis_value(appending).unwrap();
    assert_eq!(appending.1, "yes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_is_fenced() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    // Started by hand with the file that is there, as after a reboot that nobody ordered.
    for at in [0, 1] {
        lab.kill(at);
        let conf = lab.data_directory(at).join("redis.conf");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&conf).unwrap().permissions().mode() & 0o777, 0o600);
        std::process::Command::new("/usr/bin/redis-server").arg(&conf).status().unwrap();
    }
    lab.until("it answers", Duration::from_secs(5), async || {
        lab.view(0).await.process == ProcessState::Running
    })
    .await;
    let error = lab.ask_node(0, &["SET", "a", "1"]).await.unwrap_err();
    assert!(error.to_string().to_uppercase().contains("NOREPLICAS"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_ready_is_not_promoted() {
    let lab = Lab::new(0, RedisMode::Vote);
    lab.done(0, Order::RedisStart { first: true }).await;
    lab.kill(0);
    // A replica that never reached its master.
    let order = lab.follow(0, 0);
    let follower = lab.nodes[1].clone();
    let _ = follower.perform(&order, Duration::from_millis(300), &|_| {}).await;
    assert!(lab.pid(1).is_none(), "without an upstream nothing is started");
    lab.done(0, Order::RedisStart { first: false }).await;
    lab.done(1, lab.follow(0, 0)).await;
    lab.kill(0);
    lab.kill(1);
    // Started again without its master: it has data, and nobody knows how old it is.
    std::process::Command::new("/usr/bin/redis-server")
        .arg(lab.data_directory(1).join("redis.conf"))
        .status()
        .unwrap();
    lab.until("it answers", Duration::from_secs(5), async || {
        lab.view(1).await.process == ProcessState::Running
    })
    .await;
    let promote = Order::RedisPromote { accept_loss: false };
    assert_eq!(lab.refused(1, promote).await, "redis-never-linked");
    lab.done(1, Order::RedisPromote { accept_loss: true }).await;
    assert_eq!(lab.view(1).await.role, Some(RedisRole::Master));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_its_agent_saw_in_step_is_promoted_though_it_was_started_again_since() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    lab.ask_node(0, &["SET", "a", "1"]).await.unwrap();
    lab.until("the replica has it", Duration::from_secs(5), async || {
        let view = lab.view(1).await;
        view.link_up && view.keys == 1
    })
    .await;
    lab.kill(1);
    // The master takes so long to begin with a full copy that it is gone before.
    lab.ask_node(0, &["CONFIG", "SET", "repl-diskless-sync", "yes"]).await.unwrap();
    lab.ask_node(0, &["CONFIG", "SET", "repl-diskless-sync-delay", "600"]).await.unwrap();
    let order = lab.follow(0, 0);
    let followed = lab.nodes[1].perform(&order, Duration::from_secs(2), &|_| {}).await;
    assert!(matches!(followed, Outcome::Unknown { .. }), "{followed:?}");
    lab.kill(0);
    assert!(!lab.view(1).await.link_up);
    lab.done(1, Order::RedisPromote { accept_loss: false }).await;
    let view = lab.view(1).await;
    assert_eq!((view.role, view.keys), (Some(RedisRole::Master), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_silent_and_nothing_hangs() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    for warm in [true, false] {
        if !warm {
            // Connections from before are gone by now: new ones hang as well.
            assert_eq!(lab.view(0).await.process, ProcessState::Silent);
        }
        lab.signal(0, Signal::STOP);
        let begun = Instant::now();
        let view = lab.view(0).await;
        println!("frozen, warm {warm}: {:?} after {:?}", view.process, begun.elapsed());
        assert_eq!(view.process, ProcessState::Silent);
        let begun = Instant::now();
        let pause = Order::RedisPause { pause_ms: 100 };
        let outcome = lab.nodes[0].perform(&pause, Duration::from_millis(200), &|_| {}).await;
        println!("{outcome} after {:?}", begun.elapsed());
        assert!(matches!(outcome, Outcome::Unknown { .. }));
    }
    // It must follow now: it is ended rather than woken.
    lab.done(1, Order::RedisPromote { accept_loss: false }).await;
    let before = lab.pid(0);
    let begun = Instant::now();
    let followed = lab.done(0, lab.follow(1, 0)).await;
    println!("a frozen master follows after {:?}: {followed:?}", begun.elapsed());
    assert_ne!(lab.pid(0), before);
    assert_eq!(lab.view(0).await.role, Some(RedisRole::Replica));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_takes_everything_anew() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    for n in 0..100 {
        lab.ask_node(0, &["SET", &format!("k{n}"), "x"]).await.unwrap();
    }
    let order =
        Order::RedisFollow { upstream: lab.id(0).clone(), min_replicas_to_write: 0, rebuild: true };
    let followed = lab.done(1, order).await;
    println!("{followed:?}");
    assert!(
        matches!(followed, Fact::Followed { method, diverged_bytes: 0, .. } if method == "full")
    );
    assert_eq!(lab.view(1).await.keys, 100);
}
