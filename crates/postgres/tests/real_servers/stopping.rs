//! A stop ends within its limit, whatever the standby does.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::words::WalPosition;

use crate::harness::*;
use crate::scenario;

/// Stop the primary, and say where, as it says itself.
async fn stop(pair: &Pair) -> WalPosition {
    let Fact::Stopped { clean_at: Some(end), .. } = pair.a.done(Order::PostgresStop).await else {
        panic!("not clean")
    };
    end
}

scenario!(a_primary_ends_where_its_standby_has_everything, {
    let (pair, member) = Pair::protected().await;
    // Acknowledged without waiting for anybody, until the very end.
    let client = pair.a.client().await.unwrap();
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let writing = tokio::spawn(async move {
        let mut acknowledged = 0;
        while write(&client, acknowledged).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let end = stop(&pair).await;
    println!("{:32} {:>7.1} ms", "stop under writes", milliseconds(began));
    // The kernel may still be at it.
    while pair.a.postmaster().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let written = writing.await.unwrap();
    assert!(written > 0);
    // Not shut down: ended where nothing was missing.
    assert_eq!(pair.a.adapter.observe().await.shut_down_cleanly, Some(false));
    pair.b.done(promote(&member, Some(end))).await;
    // The last one may have been stored without an answer.
    let found = pair.b.rows().await;
    assert!((written..=written + 1).contains(&found), "{written} acknowledged, {found} found");
    let Fact::Followed { method, diverged_bytes, .. } = pair.a.done(follow(&pair.b)).await else {
        panic!()
    };
    assert_eq!((method.as_str(), diverged_bytes), ("streaming", 0));
});

scenario!(a_stop_whose_agent_was_killed_is_found_by_the_next_one, {
    let (pair, _) = Pair::protected().await;
    let mark = pair.a.beside(".ending");
    let left = || pair.a.adapter.is_left_ending().unwrap();
    assert!(!left());
    std::fs::write(&mark, "").unwrap();
    kill_process(pair.a.postmaster().unwrap(), Signal::STOP).unwrap();
    assert!(left());
    pair.a.adapter.hold().unwrap();
    pair.a.adapter.forget_ending().unwrap();
    assert!(!left());
    pair.a.adapter.release().unwrap();
    // Whoever comes to the end leaves nothing behind, and what has ended is not left.
    stop(&pair).await;
    assert!(!mark.exists());
    while pair.a.postmaster().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::write(&mark, "").unwrap();
    assert!(!left());
});

scenario!(a_primary_whose_archiver_is_behind_is_shut_down, {
    let (pair, _) = Pair::protected().await;
    let waiting = pair.a.data().join("pg_wal/archive_status/000000010000000000000001.ready");
    std::fs::write(&waiting, "").unwrap();
    stop(&pair).await;
    assert_eq!(pair.a.adapter.observe().await.shut_down_cleanly, Some(true));
});

scenario!(a_primary_with_a_session_that_does_not_end_is_stopped_all_the_same, {
    let (pair, member) = Pair::protected().await;
    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    // The client's own: that of the join's last session may just be ending.
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
    kill_process(Pid::from_raw(row.get(0)).unwrap(), Signal::STOP).unwrap();
    let outcome = pair.a.order(Order::PostgresStop, Duration::from_millis(1_500)).await;
    let Outcome::Done { fact: Fact::Stopped { clean_at, .. } } = outcome else {
        panic!("{outcome}")
    };
    assert_eq!(clean_at, None);
    assert!(pair.a.postmaster().is_none());
    pair.b.done(promote(&member, None)).await;
    assert_eq!(pair.b.rows().await, 1);
});

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

scenario!(those_whose_transaction_a_stop_ends_are_named_and_a_commit_that_waits_is_none, {
    let (pair, _) = Pair::protected().await;
    kill_process(pair.b.process("walreceiver").await, Signal::STOP).unwrap();
    let open = pair.a.client().await.unwrap();
    open.batch_execute("SET application_name = 'reports'; BEGIN; SELECT 1").await.unwrap();
    let waits = pair.a.client().await.unwrap();
    let process = "SELECT pg_backend_pid()";
    let waiting: i32 = waits.query_one(process, &[]).await.unwrap().get(0);
    let pid: i32 = open.query_one(process, &[]).await.unwrap().get(0);
    let commit = tokio::spawn(async move { write(&waits, 1).await });
    let wait =
        format!("SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = {waiting}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while pair.a.admin_value(&wait).await != "SyncRep" {
        assert!(Instant::now() < deadline, "the commit does not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let outcome = pair.a.order(Order::PostgresStop, Duration::from_millis(500)).await;
    let Outcome::Done { fact: Fact::Stopped { ended, .. } } = outcome else { panic!("{outcome}") };
    assert_eq!((ended.all, ended.in_transaction), (2, 1), "{ended}");
    let named = &ended.named[0];
    let own = format!("pid {pid}, user=");
    let parts = [&own, ", app=reports, for ", " s"];
    assert!(parts.iter().all(|part| named.contains(*part)), "{named}");
    assert!(commit.await.unwrap().is_err());
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
