//! Joining and leaving the takeover set, and letting clients in after a start.

use std::time::Duration;

use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::words::SyncName;

use crate::harness::*;
use crate::scenario;

scenario!(commits_wait_for_the_member_until_it_leaves, {
    let (pair, member) = Pair::protected().await;
    let name = member.name.clone();
    let view = pair.a.adapter.observe().await;
    assert_eq!(view.sync_names.as_deref(), Some(r#"FIRST 1 ("main.region2#1")"#));
    let follower = view.followers.first().unwrap();
    assert_eq!((follower.name.as_str(), follower.sync_state.as_str()), ("main.region2#1", "sync"));
    let standby = pair.b.adapter.observe().await;
    assert_eq!(standby.streaming_as.as_deref(), Some("main.region2#1"));
    assert_eq!(standby.system, view.system);
    assert_eq!(standby.sync_names.as_deref(), Some(""), "ready for a promotion");
    assert!(standby.clients_admitted, "a standby that streams may be read");
    // Said again, everything answers as before.
    pair.a.done(Order::PostgresJoinProve { name: name.clone() }).await;
    pair.a.done(Order::PostgresJoinBegin { name: name.clone(), join_limit_ms: 100 }).await;
    pair.b.done(Order::PostgresRename { name: name.clone() }).await;
    let other = SyncName::new(pair.b.id.clone(), 2);
    let begin = Order::PostgresJoinBegin { name: other, join_limit_ms: 100 };
    assert_eq!(pair.a.refused(begin).await, "names-in-force");

    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    pair.b.done(Order::PostgresStop).await;
    let waiting = tokio::spawn(async move { write(&client, 2).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!waiting.is_finished(), "a commit must wait for the member");
    let view = pair.a.adapter.observe().await;
    let waited: u64 = view.settings["tier0.commit_wait_ms"].parse().unwrap();
    assert!(waited >= 100, "{waited}");
    pair.a.done(Order::PostgresLeave).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(pair.a.rows().await, 2);
    pair.a.done(Order::PostgresLeave).await;
    // It comes back by streaming, as no member.
    let Fact::Followed { method, .. } = pair.b.done(follow(&pair.a)).await else { panic!() };
    assert_eq!(method, "streaming");
    assert!(!pair.b.beside(".member").exists());
    join(&pair.a, &pair.b, 2).await;
    // Told to follow while it is a member, it streams as no member.
    pair.a.done(Order::PostgresLeave).await;
    pair.b.done(follow(&pair.a)).await;
    let view = pair.b.adapter.observe().await;
    assert_eq!(view.streaming_as.as_deref(), Some("main.region2-join"));
});

scenario!(an_unproven_join_undoes_itself, {
    let pair = Pair::following().await;
    let name = SyncName::new(pair.b.id.clone(), 1);
    let client = pair.a.client().await.unwrap();
    pair.a.done(Order::PostgresJoinBegin { name: name.clone(), join_limit_ms: 400 }).await;
    assert!(pair.a.beside(".joining").exists());
    let began = std::time::Instant::now();
    write(&client, 1).await.unwrap();
    println!("{:32} {:>7.1} ms", "commit during an undone join", milliseconds(began));
    let proof = pair.a.order(Order::PostgresJoinProve { name: name.clone() }, LIMIT).await;
    assert!(matches!(proof, Outcome::Failed { .. }), "{proof}");
    assert_eq!(pair.a.admin_value("SHOW synchronous_standby_names").await, "");
    for _ in 0..100 {
        if !pair.a.beside(".joining").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!pair.a.beside(".joining").exists());

    // An agent that starts anew undoes what its predecessor left.
    let name = SyncName::new(pair.b.id.clone(), 2);
    pair.a.done(Order::PostgresJoinBegin { name, join_limit_ms: 600_000 }).await;
    let waiting = tokio::spawn(async move { write(&client, 2).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    pair.a.agent_restarted().observe().await;
    waiting.await.unwrap().unwrap();
    assert_eq!(pair.a.admin_value("SHOW synchronous_standby_names").await, "");
    assert!(!pair.a.beside(".joining").exists());
});

scenario!(a_restarted_primary_lets_clients_in_only_after_the_proof, {
    let (pair, member) = Pair::protected().await;
    let names = Some(member.name.clone());
    pair.a.done(Order::PostgresStop).await;
    pair.a.done(Order::PostgresStart { names: names.clone() }).await;
    assert_eq!(pair.a.refused(Order::PostgresAdmit { member: None }).await, "names-differ");
    assert!(pair.a.client().await.is_err());
    pair.a.done(Order::PostgresAdmit { member: names.clone() }).await;
    let client = pair.a.client().await.unwrap();
    write(&client, 1).await.unwrap();
    pair.a.done(Order::PostgresAdmit { member: names.clone() }).await;

    // A crash, and the member is gone: nobody is let in.
    pair.b.done(Order::PostgresStop).await;
    pair.a.kill_postmaster();
    tokio::time::sleep(Duration::from_millis(200)).await;
    pair.a.done(Order::PostgresStart { names: names.clone() }).await;
    let admit = Order::PostgresAdmit { member: names };
    let outcome = pair.a.order(admit, Duration::from_secs(2)).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome}");
    assert!(pair.a.client().await.is_err());
    assert!(!pair.a.adapter.observe().await.clients_admitted);
    let in_force = pair.a.admin_value("SHOW synchronous_standby_names").await;
    assert_eq!(in_force, r#"FIRST 1 ("main.region2#1")"#);
});

scenario!(no_other_file_says_who_may_connect, {
    let pair = Pair::exposed().await;
    let open = pair.a.beside(".open-hba");
    std::fs::write(&open, "local all all peer map=tier0\nhost all all 127.0.0.0/8 trust\n")
        .unwrap();
    let admin = pair.a.admin().await;
    let alter = |name: &str, value: &str| format!("ALTER SYSTEM SET {name} = '{value}'");
    admin
        .simple_query(&alter("hba_file", &open.display().to_string().replace('\'', "''")))
        .await
        .unwrap();
    admin.simple_query(&alter("recovery_target", "immediate")).await.unwrap();
    drop(admin);
    pair.a.done(Order::PostgresStop).await;
    pair.a.done(Order::PostgresStart { names: None }).await;
    assert!(pair.a.client().await.is_err(), "clients are kept out until they are admitted");
    assert_eq!(pair.a.admin_value("SHOW recovery_target").await, "");
    pair.a.done(Order::PostgresAdmit { member: None }).await;
    pair.a.client().await.unwrap();
});
