//! Coming back after a crash with WAL that the new primary has not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::words::SyncName;
use tokio::sync::Notify;

use crate::harness::*;
use crate::scenario;

/// A primary that crashed with a commit that nobody got and nobody was told of; the member was
/// promoted and has written since.
async fn diverged() -> Pair {
    let (pair, member) = Pair::protected().await;
    let client = pair.a.client().await.unwrap();
    for number in 0..20 {
        write(&client, number).await.unwrap();
    }
    // A frozen walsender sends nothing: the next commit stays here, unacknowledged.
    let sender = pair.a.process("walsender").await;
    kill_process(sender, Signal::STOP).unwrap();
    let lost = tokio::spawn(async move { write(&client, 1_000).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!lost.is_finished());
    pair.a.kill_postmaster();
    kill_process(sender, Signal::KILL).unwrap();
    assert!(lost.await.unwrap().is_err(), "the commit must not be acknowledged");
    pair.b.done(promote(&member, None)).await;
    assert_eq!(pair.b.rows().await, 20);
    write(&pair.b.client().await.unwrap(), 20).await.unwrap();
    pair
}

scenario!(a_diverged_primary_rewinds_and_its_surplus_is_kept, {
    let pair = diverged().await;
    let Fact::Followed { method, diverged_bytes, kept_at } = pair.a.done(follow(&pair.b)).await
    else {
        panic!()
    };
    assert_eq!(method, "rewind");
    assert!(diverged_bytes > 0);
    let kept = kept_at.expect("what diverged is kept");
    assert!(std::fs::read_dir(Path::new(&kept)).unwrap().count() > 0);
    assert!(!pair.a.beside(".rewinding").exists());
    join(&pair.b, &pair.a, 2).await;
    write(&pair.b.client().await.unwrap(), 21).await.unwrap();
    assert_eq!(pair.a.rows().await, 22);
    // The configuration is this node's own again, not the source's.
    let cluster = pair.a.admin_value("SHOW cluster_name").await;
    assert_eq!(cluster, "main.region1");
});

scenario!(a_postmaster_that_nobody_waited_for_is_waited_for_by_the_rewind, {
    let pair = diverged().await;
    // What the lock file names has ended, and its parent is slow to ask for it.
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    let lock_file = pair.a.data().join("postmaster.pid");
    let text = std::fs::read_to_string(&lock_file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&lock_file, format!("{}\n{rest}", ended.id())).unwrap();
    let parent = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ended.wait().unwrap();
    });
    let followed = pair.a.done(follow(&pair.b)).await;
    assert!(
        matches!(&followed, Fact::Followed { method, .. } if method == "rewind"),
        "{followed:?}"
    );
    parent.await.unwrap();
});

scenario!(a_rewind_that_broke_off_goes_to_a_base_backup, {
    let pair = diverged().await;
    let begun = Arc::new(Notify::new());
    let tell = begun.clone();
    let progress = move |sentence: String| {
        if sentence == "rewinding" {
            tell.notify_one();
        }
    };
    let order = follow(&pair.b);
    tokio::select! {
        outcome = pair.a.adapter.perform(&order, LIMIT, &progress) => panic!("{outcome}"),
        () = begun.notified() => {}
    }
    assert!(pair.a.beside(".rewinding").exists());
    assert_eq!(pair.a.adapter.observe().await.process, ProcessState::Unusable);
    let start = Order::PostgresStart { names: None };
    assert_eq!(pair.a.refused(start).await, "data-unusable");
    let Fact::Followed { method, diverged_bytes, kept_at } = pair.a.done(follow(&pair.b)).await
    else {
        panic!()
    };
    assert_eq!(method, "base-backup");
    assert!(diverged_bytes > 0 && kept_at.is_some());
    assert!(!pair.a.beside(".rewinding").exists());
    join(&pair.b, &pair.a, 2).await;
});

scenario!(old_data_stays_untouched_where_the_order_says_so, {
    let pair = diverged().await;
    let order =
        Order::PostgresFollow { upstream: pair.b.id.clone(), rebuild: false, keep_old: true };
    let Fact::Followed { method, .. } = pair.a.done(order).await else { panic!() };
    assert_eq!(method, "base-backup");
    let parent = pair.a.data().parent().unwrap();
    let old = std::fs::read_dir(parent)
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("data.old-"))
        .expect("the old data directory");
    assert!(old.path().join("global/pg_control").exists());
    assert!(!old.path().join("standby.signal").exists());
    assert_eq!(pair.a.rows().await, 21);
});

scenario!(a_foreign_cluster_is_replaced_only_when_told, {
    let pair = Pair::exposed().await;
    let stranger = tier0_config::Secret::new(APPLICATION_PASSWORD);
    pair.b.adapter.initialise(&stranger).await.unwrap();
    assert_eq!(pair.b.refused(follow(&pair.a)).await, "foreign-system");
    pair.b.done(Order::PostgresStart { names: None }).await;
    assert_eq!(pair.b.refused(follow(&pair.a)).await, "upstream-not-newer");
    pair.b.done(Order::PostgresStop).await;
    let order =
        Order::PostgresFollow { upstream: pair.a.id.clone(), rebuild: true, keep_old: false };
    pair.b.done(order).await;
});

scenario!(a_standby_that_is_busy_replaying_is_waited_for, {
    let mut pair = Pair::following().await;
    pair.b.done(Order::PostgresStop).await;
    // A backlog in the archive: the receiver starts only after the last segment was replayed.
    let client = pair.a.client().await.unwrap();
    let admin = pair.a.admin().await;
    for number in 0..150 {
        write(&client, number).await.unwrap();
        admin.simple_query("SELECT pg_switch_wal()").await.unwrap();
    }
    let archived = "SELECT last_archived_wal >= '000000010000000000000090' FROM pg_stat_archiver";
    while pair.a.admin_value(archived).await != "t" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pair.b.settings.stream_limit = Duration::from_secs(1);
    pair.b.adapter = pair.b.agent_restarted();
    let Fact::Followed { method, .. } = pair.b.done(follow(&pair.a)).await else { panic!() };
    assert_eq!(method, "streaming");
    assert_eq!(pair.b.rows().await, 150);
});

scenario!(surplus_is_kept_where_the_segment_of_the_fork_is_gone, {
    let pair = diverged().await;
    let history = pair.b.data().join("pg_wal/00000002.history");
    let history = std::fs::read_to_string(history).unwrap();
    pair.a.done(Order::PostgresStart { names: None }).await;
    let admin = pair.a.admin().await;
    for _ in 0..3 {
        admin
            .simple_query(
                "INSERT INTO tier0.canary (token) VALUES ('alone'); SELECT pg_switch_wal()",
            )
            .await
            .unwrap();
    }
    admin.simple_query("INSERT INTO tier0.canary (token) VALUES ('alone')").await.unwrap();
    pair.a.kill_postmaster();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // As after a lost slot: the WAL around the fork was recycled.
    let fork = history.split_whitespace().nth(1).unwrap();
    let low = u64::from_str_radix(fork.split_once('/').unwrap().1, 16).unwrap();
    let wal = pair.a.data().join("pg_wal");
    std::fs::remove_file(wal.join(format!("0000000100000000{:08X}", low / (4 << 20)))).unwrap();
    let Fact::Followed { diverged_bytes, kept_at, .. } = pair.a.done(follow(&pair.b)).await else {
        panic!()
    };
    assert!(diverged_bytes > 2 * (4 << 20), "{diverged_bytes}");
    assert!(kept_at.is_some());
});

/// A standby in the takeover set has twenty rows; its primary came back from an older copy.
async fn restored() -> (Pair, SyncName) {
    let (pair, member) = Pair::protected().await;
    let copy = pair.a.beside(".copy");
    pair.a.done(Order::PostgresStop).await;
    // Its archiver may be at work still.
    while pair.a.postmaster().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let copied = std::process::Command::new("cp").arg("-a").arg(pair.a.data()).arg(&copy).status();
    assert!(copied.unwrap().success());
    let names = Some(member.name.clone());
    pair.a.done(Order::PostgresStart { names: names.clone() }).await;
    pair.a.done(Order::PostgresAdmit { member: names.clone() }).await;
    let client = pair.a.client().await.unwrap();
    for number in 0..20 {
        write(&client, number).await.unwrap();
    }
    pair.a.kill_postmaster();
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::remove_dir_all(pair.a.data()).unwrap();
    std::fs::rename(&copy, pair.a.data()).unwrap();
    std::fs::remove_dir_all(pair.a.own().archive_directory.as_ref().unwrap()).unwrap();
    pair.a.done(Order::PostgresStart { names }).await;
    assert_eq!(pair.a.rows().await, 0);
    (pair, member.name)
}

scenario!(a_primary_that_lost_wal_does_not_let_clients_in, {
    let (pair, name) = restored().await;
    let admit = Order::PostgresAdmit { member: Some(name) };
    let outcome = pair.a.order(admit.clone(), Duration::from_secs(5)).await;
    assert!(!matches!(outcome, Outcome::Done { .. }), "{outcome}");
    // Not either once it has written as much as it lost.
    let more = "SET synchronous_commit = local; INSERT INTO tier0.canary (token) \
                SELECT repeat('x', 100) FROM generate_series(1, 2000)";
    pair.a.admin().await.simple_query(more).await.unwrap();
    let outcome = pair.a.order(admit, Duration::from_secs(5)).await;
    assert!(!matches!(outcome, Outcome::Done { .. }), "{outcome}");
    assert!(pair.a.client().await.is_err());
});

scenario!(a_standby_that_has_more_than_its_primary_keeps_it, {
    let (pair, _) = restored().await;
    pair.a.done(Order::PostgresLeave).await;
    let Fact::Followed { diverged_bytes, kept_at, .. } = pair.b.done(follow(&pair.a)).await else {
        panic!()
    };
    assert!(diverged_bytes > 0);
    assert!(kept_at.is_some());
});
