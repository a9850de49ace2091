//! Clients are moved without an error, to where the newest epoch says.

use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Outcome};
use tier0_core::words::Epoch;

use crate::harness::*;
use crate::scenario;

scenario!(clients_that_are_held_go_on_at_the_new_writer_without_an_error_twice_in_a_row, {
    let rig = Rig::new().await;
    let client = rig.client().await;
    assert_eq!(rig.answers(&client).await, region(1));
    for (epoch, to) in [(2, 2), (3, 1)] {
        let held = rig.done(hold(5_000, 60_000)).await;
        assert_eq!(held, Fact::Held { open: Vec::new(), waiting: 0 });
        // One that was there before, and one that comes while everybody is held.
        let (waits, comes) = (rig.answers(&client), async {
            let client = rig.client().await;
            rig.answers(&client).await
        });
        let moved = async {
            rig.seen("both wait", |view| view.held && view.waiting == 2).await;
            rig.done(switch(epoch, to)).await;
            // Said again, as after an answer that was lost.
            rig.done(switch(epoch, to)).await;
            rig.seen("still held", |view| view.held && view.to == Some(region(to))).await;
            rig.done(release(epoch, to)).await
        };
        let (waits, comes, released) = tokio::join!(waits, comes, moved);
        assert_eq!((waits, comes), (region(to), region(to)));
        assert!(matches!(released, Fact::Released { held_ms } if held_ms > 0), "{released:?}");
        assert!(matches!(rig.done(release(epoch, to)).await, Fact::Released { held_ms: 0 }));
    }
    let view = rig.seen("released", |view| !view.held).await;
    assert_eq!((view.epoch, view.to), (Some(Epoch::read(3)), Some(region(1))));
});

scenario!(eight_switches_right_after_one_another_give_no_client_an_error, {
    let rig = Rig::new().await;
    let mut asking = Vec::new();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for _ in 0..8 {
        let (client, over) = (rig.client().await, over.clone());
        asking.push(tokio::spawn(async move {
            let mut answers = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                value(&client, "SELECT 1").await.unwrap();
                answers += 1;
            }
            answers
        }));
    }
    let began = std::time::Instant::now();
    for epoch in 2..10 {
        let to = if epoch % 2 == 0 { 2 } else { 1 };
        rig.done(hold(5_000, 60_000)).await;
        rig.done(switch(epoch, to)).await;
        rig.done(release(epoch, to)).await;
    }
    println!("8 switches within {} ms", began.elapsed().as_millis());
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    for one in asking {
        assert!(one.await.unwrap() > 0);
    }
    // It also says so to the client that sees whether statements come back.
    assert!(!rig.log().contains("login has been failing"), "{}", rig.log());
});

scenario!(a_pool_that_is_down_is_said_to_be_and_points_right_when_it_is_back, {
    let mut rig = Rig::new().await;
    rig.kill_route();
    rig.seen("down", |view| view.process == ProcessState::Stopped && view.error.is_some()).await;
    assert!(matches!(rig.order(hold(100, 60_000)).await, Outcome::Failed { .. }));
    assert!(matches!(rig.order(switch(2, 2)).await, Outcome::Failed { .. }));
    rig.start_route();
    let client = rig.client().await;
    assert_eq!(rig.answers(&client).await, region(2));
    rig.done(release(2, 2)).await;
});

scenario!(a_named_statement_does_not_survive_the_move_and_an_unnamed_one_does, {
    let rig = Rig::new().await;
    let client = rig.client().await;
    // What the documentation says of PgBouncer before 1.21.
    let named = client.prepare("SELECT inet_server_port()").await.unwrap();
    rig.done(hold(5_000, 60_000)).await;
    rig.done(release(2, 2)).await;
    let error = client.query(&named, &[]).await.unwrap_err();
    let code = error.code().map(|code| code.code().to_owned());
    assert_eq!(code.as_deref(), Some("26000"), "{error}");
    let client = rig.client().await;
    let rows = client.query_typed("SELECT inet_server_port()", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
});
