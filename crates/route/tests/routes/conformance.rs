//! What a route of every kind promises, and what those promise that hold. Sessions that are open at a
//! switch are another matter: a PgBouncer moves them, the others cut them; here none may leave one at
//! the old server.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tier0_config::RouteKind;
use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::words::Epoch;

use crate::harness::*;
use crate::scenario;

/// The same scenarios for each kind that holds.
macro_rules! for_each_that_holds {
    ($($kind:ident: $route:expr),*) => {$(
        mod $kind {
            use super::*;
            scenario!(who_comes_while_it_holds_goes_to_the_new_writer_and_a_hold_ends_by_itself, {
                let rig = Rig::with($route).await;
                super::who_comes_while_it_holds(&rig).await;
                super::a_hold_ends_by_itself(&rig).await;
                super::a_hundred_are_held(&rig).await;
            });
            scenario!(who_is_held_goes_on_when_the_new_server_writes_before_the_order_comes, {
                let rig = Rig::with($route).await;
                super::who_is_held_goes_on(&rig).await;
            });
        }
    )*};
}

/// And for each of all.
macro_rules! for_each_kind {
    ($($kind:ident: $route:expr),*) => {$(
        mod $kind {
            use super::*;
            scenario!(an_older_epoch_is_refused_also_by_one_that_was_down, {
                let mut rig = Rig::with($route).await;
                super::an_older_epoch_is_refused(&mut rig).await;
                super::one_that_is_down_is_said_to_be(&mut rig).await;
            });
        }
    )*};
}

for_each_that_holds!(pgbouncer_holds: RouteKind::Pgbouncer, router_holds: RouteKind::Proxy);
for_each_kind!(
    pgbouncer: RouteKind::Pgbouncer,
    haproxy: RouteKind::Haproxy,
    router: RouteKind::Proxy
);

async fn who_comes_while_it_holds(rig: &Rig) {
    let mut open = rig.client().await;
    assert_eq!(rig.answers(&open).await, region(1));
    for (epoch, to) in [(2, 2), (3, 1)] {
        rig.done(hold(5_000, 60_000)).await;
        let comes = async {
            let client = rig.client().await;
            (rig.answers(&client).await, client)
        };
        let moved = async {
            rig.seen("it waits", |view| view.held && view.waiting > 0).await;
            rig.done(switch(epoch, to)).await;
            // Said again, as after an answer that was lost.
            rig.done(switch(epoch, to)).await;
            rig.seen("still held", |view| view.held && view.to == Some(region(to))).await;
            rig.done(release(epoch, to)).await
        };
        let ((answered, client), released) = tokio::join!(comes, moved);
        assert_eq!(answered, region(to));
        assert!(matches!(released, Fact::Released { held_ms } if held_ms > 0), "{released:?}");
        assert!(matches!(rig.done(release(epoch, to)).await, Fact::Released { held_ms: 0 }));
        let left = value(&open, "SELECT inet_server_port()").await;
        let new = rig.settings.nodes[&region(to)].port().to_string();
        assert!(left.as_ref().map_or(true, |port| *port == new), "{left:?}");
        open = client;
    }
    let view = rig.seen("released", |view| !view.held).await;
    assert_eq!((view.epoch, view.to), (Some(Epoch::read(3)), Some(region(1))));
    let outcome = rig.adapter.perform(&Order::PostgresStop, LIMIT).await;
    assert!(matches!(&outcome, Outcome::Refused { refusal } if refusal.code == "wrong-kind"));
}

async fn who_is_held_goes_on(rig: &Rig) {
    let adapter = rig.adapter.clone();
    let watching = tokio::spawn(async move { adapter.keep_watch().await });
    // A server that does not say yet that it writes.
    rig.signal_server(2, Signal::STOP);
    rig.done(hold(5_000, 60_000)).await;
    let comes = async { rig.answers(&rig.client().await).await };
    let moved = async {
        rig.seen("it waits", |view| view.held && view.waiting > 0).await;
        rig.done(switch(2, 2)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.seen("still held", |view| view.held && view.to == Some(region(2))).await;
        rig.signal_server(2, Signal::CONT);
    };
    let (answered, ()) = tokio::join!(comes, moved);
    assert_eq!(answered, region(2));
    rig.seen("released", |view| !view.held).await;
    let released = rig.done(release(2, 2)).await;
    assert!(matches!(released, Fact::Released { held_ms } if held_ms >= 100), "{released:?}");
    // Where it was switched to earlier is not where the next hold ends.
    rig.done(hold(5_000, 60_000)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(rig.adapter.observe().await.held);
    rig.done(release(2, 2)).await;
    watching.abort();
}

async fn an_older_epoch_is_refused(rig: &mut Rig) {
    rig.done(switch(5, 2)).await;
    for restarted in [false, true] {
        if restarted {
            rig.kill_route();
            rig.start_route();
            rig.running(2, Epoch::read(5)).await;
        }
        for order in [switch(4, 1), release(4, 1), switch(5, 1)] {
            let outcome = rig.order(order.clone()).await;
            let Outcome::Refused { refusal } = &outcome else { panic!("{order:?}: {outcome}") };
            assert_eq!(refusal.code, "old-epoch");
        }
    }
    assert_eq!(rig.answers(&rig.client().await).await, region(2));
    let restarted = rig.agent_restarted();
    // Neither an orchestrator that is behind nor one that is not changes anything here.
    restarted.keep_pointed(&region(1), Epoch::read(4)).await;
    restarted.keep_pointed(&region(2), Epoch::read(5)).await;
    assert_eq!(rig.answers(&rig.client().await).await, region(2));
    // One that is ahead does: this agent was away when the route was switched.
    restarted.keep_pointed(&region(1), Epoch::read(6)).await;
    assert_eq!(rig.answers(&rig.client().await).await, region(1));
}

async fn a_hold_ends_by_itself(rig: &Rig) {
    let adapter = rig.adapter.clone();
    let watching = tokio::spawn(async move { adapter.keep_watch().await });
    let began = Instant::now();
    rig.done(hold(100, 700)).await;
    // Nobody releases.
    assert_eq!(rig.answers(&rig.client().await).await, region(1));
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    rig.seen("released", |view| !view.held).await;
    watching.abort();
}

async fn one_that_is_down_is_said_to_be(rig: &mut Rig) {
    rig.kill_route();
    rig.seen("down", |view| view.process == ProcessState::Stopped && view.error.is_some()).await;
    assert!(matches!(rig.order(hold(100, 60_000)).await, Outcome::Failed { .. }));
    assert!(matches!(rig.order(switch(7, 2)).await, Outcome::Failed { .. }));
    rig.start_route();
    rig.running(2, Epoch::read(7)).await;
    rig.agent_restarted().keep_pointed(&region(2), Epoch::read(7)).await;
    assert_eq!(rig.answers(&rig.client().await).await, region(2));
    rig.done(release(7, 2)).await;
}

async fn a_hundred_are_held(rig: &Rig) {
    rig.done(hold(5_000, 60_000)).await;
    let coming = (0..100).map(|_| async {
        let client = rig.client().await;
        rig.answers(&client).await
    });
    // PostgreSQL has room for fewer than come: those leave again.
    let coming = futures_util::stream::iter(coming.collect::<Vec<_>>());
    let coming = futures_util::StreamExt::buffer_unordered(coming, 30);
    let all = futures_util::StreamExt::collect::<Vec<_>>(coming);
    let moved = async {
        rig.seen("they wait", |view| view.waiting >= 30).await;
        rig.done(release(4, 2)).await;
    };
    let (all, ()) = tokio::join!(all, moved);
    assert_eq!(all, vec![region(2); 100]);
}
