//! Promotion: what it refuses, and the planned switch.

use std::time::{Duration, Instant};

use tier0_core::observe::PostgresRole;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::words::{Lsn, SyncName, WalPosition};

use crate::harness::*;
use crate::scenario;

scenario!(a_clean_switch_loses_nothing_and_the_old_side_streams, {
    let (pair, member) = Pair::protected().await;
    let client = pair.a.client().await.unwrap();
    for number in 0..200 {
        write(&client, number).await.unwrap();
    }
    for node in [&pair.a, &pair.b] {
        node.adapter.observe().await;
    }
    // A member's promotion runs no command, hence hangs in none.
    assert_eq!(pair.b.admin_value("SHOW restore_command").await, "");
    pair.a.done(Order::PostgresCheckpoint).await;
    let began = Instant::now();
    let Fact::Wal { position } = pair.a.done(Order::PostgresDrain).await else { panic!() };
    pair.b.done(Order::PostgresAwait { position }).await;
    let Fact::Stopped { clean_at: Some(clean_at), ended } = pair.a.done(Order::PostgresStop).await
    else {
        panic!("not clean")
    };
    assert_eq!((ended.all, ended.in_transaction), (1, 0));
    let Fact::Promoted { position } = pair.b.done(promote(&member, Some(clean_at.clone()))).await
    else {
        panic!()
    };
    pair.b.done(Order::PostgresValidate { token: "switch".into() }).await;
    println!("{:32} {:>7.1} ms", "drain to validated", milliseconds(began));
    // The new timeline begins where the shutdown checkpoint was computed to end.
    assert_eq!((position.timeline, position.lsn), (timeline(2), clean_at.lsn));
    assert_eq!(pair.b.rows().await, 200);
    let client = pair.b.client().await.expect("clients are let in with the promotion");
    write(&client, 200).await.unwrap();
    // Said again: it is a primary already.
    pair.b.done(promote(&member, None)).await;
    pair.b.done(Order::PostgresAdmit { member: None }).await;

    let Fact::Followed { method, diverged_bytes, .. } = pair.a.done(follow(&pair.b)).await else {
        panic!()
    };
    assert_eq!((method.as_str(), diverged_bytes), ("streaming", 0));
    assert_ne!(pair.a.admin_value("SHOW restore_command").await, "");
    let back = join(&pair.b, &pair.a, 2).await;
    assert_eq!(back.timeline, timeline(2));
    write(&client, 201).await.unwrap();

    // And back again, without a clean stop this time.
    pair.b.kill_postmaster();
    pair.a.done(promote(&back, None)).await;
    assert_eq!(pair.a.rows().await, 202);
    let view = pair.a.adapter.observe().await;
    assert_eq!((view.role, view.timeline), (Some(PostgresRole::Primary), Some(timeline(3))));
    let Fact::Followed { method, .. } = pair.b.done(follow(&pair.a)).await else { panic!() };
    println!("the killed side came back by {method}");
    assert_eq!(pair.b.rows().await, 202);
});

scenario!(a_member_that_has_ended_is_started_to_be_promoted, {
    let (pair, member) = Pair::protected().await;
    let client = pair.a.client().await.unwrap();
    for number in 0..20 {
        write(&client, number).await.unwrap();
    }
    // The writer has moved, and the target ends before it is promoted.
    pair.a.kill_postmaster();
    pair.b.kill_postmaster();
    assert_eq!(pair.b.refused(promote(&far_above(&member), None)).await, "below-floor");
    // The end may be noticed only by the order, which is given again then.
    let promoted = || async {
        let order = || pair.b.order(promote(&member, None), Duration::from_secs(10));
        while !matches!(order().await, Outcome::Done { .. }) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    promoted().await;
    assert_eq!(pair.b.rows().await, 20);
    // And once more after it.
    pair.b.kill_postmaster();
    tokio::time::sleep(Duration::from_secs(1)).await;
    promoted().await;
    pair.b.done(Order::PostgresValidate { token: "again".into() }).await;
    let client = pair.b.client().await.expect("clients are let in with the promotion");
    write(&client, 20).await.unwrap();
    // The old primary is not let in this way.
    assert_eq!(pair.a.refused(promote(&member, None)).await, "not-a-standby");
    pair.a.client().await.expect_err("clients are kept out");
});

scenario!(the_old_writer_to_which_the_way_leads_back_takes_a_timeline_of_its_own, {
    let (pair, member) = Pair::protected().await;
    let client = pair.a.client().await.unwrap();
    for number in 0..20 {
        write(&client, number).await.unwrap();
    }
    // The writer moved, and what it was moved to is lost: after a clean stop, or without one. The
    // timeline of what is lost was seen in the archive, and is not used again.
    for (promoted, stops) in [(3, true), (4, false)] {
        if stops {
            pair.a.done(Order::PostgresStop).await;
            pair.b.done(promote(&member, None)).await;
        } else {
            pair.a.kill_postmaster();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let accept = Order::PostgresPromote {
            member: None,
            stopped_at: None,
            accept_loss: true,
            names: None,
        };
        let Fact::Promoted { position } = pair.a.done(accept).await else { panic!() };
        assert_eq!(position.timeline, timeline(promoted));
        assert_eq!(pair.a.rows().await, 20);
        // Nobody is waited for, and clients are let in.
        pair.a.done(Order::PostgresValidate { token: "back".into() }).await;
        assert_eq!(pair.a.admin_value("SHOW synchronous_standby_names").await, "");
        pair.a.client().await.expect("clients are let in with the promotion");
        assert!(!pair.a.data().join("standby.signal").exists());
    }
});

fn far_above(member: &tier0_core::order::PromoteMember) -> tier0_core::order::PromoteMember {
    tier0_core::order::PromoteMember { floor: lsn("FF/0"), ..member.clone() }
}

scenario!(what_is_not_the_member_is_not_promoted, {
    let (pair, member) = Pair::protected().await;
    let order = |change: fn(&mut tier0_core::order::PromoteMember)| {
        let mut other = member.clone();
        change(&mut other);
        promote(&other, None)
    };
    let refused = |order| pair.b.refused(order);
    assert_eq!(refused(order(|m| m.floor = lsn("FF/0"))).await, "below-floor");
    assert_eq!(
        refused(order(|m| m.name = SyncName::new(m.name.node().clone(), 9))).await,
        "not-that-member"
    );
    assert_eq!(refused(order(|m| m.system = system("1"))).await, "foreign-system");
    assert_eq!(refused(order(|m| m.timeline = timeline(7))).await, "other-timeline");
    let nobody =
        Order::PostgresPromote { member: None, stopped_at: None, accept_loss: false, names: None };
    assert_eq!(refused(nobody).await, "no-member");
    // The stream never reaches this.
    let far = WalPosition {
        system: member.system.clone(),
        timeline: member.timeline,
        lsn: Lsn::from_bytes(member.floor.bytes() + (1 << 30)),
    };
    let outcome = pair.b.order(promote(&member, Some(far)), Duration::from_millis(300)).await;
    assert!(outcome.to_string().contains("short-of-stop"), "{outcome}");
    // A damaged marker is no marker.
    let marker = pair.b.beside(".member");
    let whole = std::fs::read(&marker).unwrap();
    std::fs::write(&marker, &whole[..whole.len() - 5]).unwrap();
    assert_eq!(refused(promote(&member, None)).await, "marker");
    std::fs::remove_file(&marker).unwrap();
    assert_eq!(refused(promote(&member, None)).await, "not-that-member");
    assert_eq!(pair.a.refused(promote(&member, None)).await, "not-a-standby");
    assert_eq!(pair.b.refused(Order::PostgresDrain).await, "not-a-primary");
    assert_eq!(pair.b.adapter.observe().await.role, Some(PostgresRole::Standby));

    // Loss accepted: no member is asked for, the cluster still is.
    let mut foreign = member.clone();
    foreign.system = system("1");
    let accept = |member| Order::PostgresPromote {
        member,
        stopped_at: None,
        accept_loss: true,
        names: None,
    };
    assert_eq!(pair.b.refused(accept(Some(foreign))).await, "foreign-system");
    pair.b.done(accept(None)).await;
});

scenario!(a_stopped_standby_is_not_started_as_a_primary, {
    let pair = Pair::following().await;
    pair.b.done(Order::PostgresStop).await;
    let start = Order::PostgresStart { names: None };
    assert_eq!(pair.b.refused(start).await, "data-of-a-standby");
});
