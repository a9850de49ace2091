//! The first node: made, started, looked at; and nothing of a secret anywhere.

use std::time::{Duration, Instant};

use tier0_config::Secret;
use tier0_core::observe::{PostgresRole, ProcessState};
use tier0_core::order::{Order, Outcome};

use crate::harness::*;
use crate::scenario;

scenario!(made_started_and_admitted, {
    let pair = Pair::new();
    assert_eq!(pair.a.adapter.observe().await.process, ProcessState::NoData);
    assert_eq!(pair.a.refused(Order::PostgresStart { names: None }).await, "no-data");
    pair.a.adapter.initialise(&Secret::new(APPLICATION_PASSWORD)).await.unwrap();
    let stopped = pair.a.adapter.observe().await;
    assert_eq!(stopped.process, ProcessState::Stopped);
    assert_eq!(stopped.shut_down_cleanly, Some(true));
    assert!(pair.a.adapter.initialise(&Secret::new(APPLICATION_PASSWORD)).await.is_err());

    pair.a.done(Order::PostgresStart { names: None }).await;
    let refused = pair.a.client().await.expect_err("clients are kept out after a start");
    assert!(refused.as_db_error().unwrap().message().contains("pg_hba"), "{refused}");
    let view = pair.a.adapter.observe().await;
    assert_eq!((view.role, view.clients_admitted), (Some(PostgresRole::Primary), false));
    pair.a.done(Order::PostgresAdmit { member: None }).await;
    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    assert!(client.execute("SELECT * FROM tier0.canary", &[]).await.is_err());
    pair.a.done(Order::PostgresValidate { token: "it's \\ me".into() }).await;
    pair.a.done(Order::PostgresStart { names: None }).await;
    pair.a.done(Order::PostgresAdmit { member: None }).await;

    let view = pair.a.adapter.observe().await;
    assert_eq!(view.process, ProcessState::Running);
    assert_eq!(view.error, None);
    assert!(view.clients_admitted);
    assert_eq!(view.sessions, 1);
    assert_eq!(view.timeline, Some(timeline(1)));
    assert_eq!(view.sync_names.as_deref(), Some(""));
    for (name, value) in [
        ("restart_after_crash", "off"),
        ("data_checksums", "on"),
        ("wal_log_hints", "on"),
        ("tier0.synchronous_commit_overrides", ""),
    ] {
        assert_eq!(view.settings.get(name).map(String::as_str), Some(value), "{name}");
    }
    let began = Instant::now();
    for _ in 0..20 {
        pair.a.adapter.observe().await;
    }
    println!("{:32} {:>7.2} ms", "observe, mean of 20", milliseconds(began) / 20.0);

    // A role that weakens its commits is named.
    pair.a.admin_value("ALTER ROLE tier0user SET synchronous_commit = off").await;
    let view = pair.a.adapter.observe().await;
    let overrides = &view.settings["tier0.synchronous_commit_overrides"];
    assert!(overrides.contains("tier0user"), "{overrides}");

    // Archiving works with a quote and a blank in the path.
    pair.a.admin_value("SELECT pg_switch_wal()").await;
    let archive = pair.a.own().archive_directory.clone().unwrap();
    let mut archived = 0;
    for _ in 0..300 {
        archived = std::fs::read_dir(&archive).unwrap().count();
        if archived > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(archived > 0, "{}", pair.a.log());
    for secret in [REPLICATION_PASSWORD, APPLICATION_PASSWORD] {
        assert!(!pair.a.log().contains(secret));
    }
});

scenario!(an_exit_is_noticed_at_once_and_silence_is_not_death, {
    let pair = Pair::exposed().await;
    pair.a.adapter.observe().await;
    let pid = pair.a.postmaster().unwrap();
    // All processes of the server frozen: the kept session does not answer.
    let children = || -> Vec<_> {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|child| {
                let cwd = std::fs::read_link(format!("/proc/{child}/cwd"));
                cwd.is_ok_and(|cwd| cwd == pair.a.data())
            })
            .filter_map(rustix::process::Pid::from_raw)
            .collect()
    };
    let frozen = children();
    assert!(frozen.contains(&pid));
    for one in &frozen {
        rustix::process::kill_process(*one, rustix::process::Signal::STOP).unwrap();
    }
    let began = Instant::now();
    assert_eq!(pair.a.adapter.observe().await.process, ProcessState::Silent);
    println!("{:32} {:>7.1} ms", "observe, frozen server", milliseconds(began));
    assert_eq!(pair.a.adapter.observe().await.process, ProcessState::Silent);
    for one in &frozen {
        rustix::process::kill_process(*one, rustix::process::Signal::CONT).unwrap();
    }
    assert_eq!(pair.a.adapter.observe().await.process, ProcessState::Running);

    let watching = pair.a.adapter.clone();
    let watch = tokio::spawn(async move { watching.wait_for_exit().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!watch.is_finished());
    let began = Instant::now();
    pair.a.kill_postmaster();
    watch.await.unwrap();
    println!("{:32} {:>7.1} ms", "kill to noticed", milliseconds(began));
    let view = pair.a.adapter.observe().await;
    assert_eq!(view.process, ProcessState::Stopped);
    assert_eq!(view.shut_down_cleanly, Some(false));
    let again = pair.a.order(Order::PostgresStop, LIMIT).await;
    assert!(matches!(again, Outcome::Done { .. }), "{again}");
    pair.a.done(Order::PostgresStart { names: None }).await;
    assert!(pair.a.client().await.is_err(), "a start keeps clients out again");
});
