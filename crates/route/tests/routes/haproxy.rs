//! What HAProxy does besides: it holds nobody, so clients are cut by the switch and turned away until
//! the release, which may not be forgotten either.

use std::time::Duration;

use tier0_config::RouteKind;
use tier0_core::order::Fact;
use tier0_core::words::Epoch;

use crate::harness::*;
use crate::scenario;

scenario!(sessions_are_cut_by_the_switch_and_nobody_is_let_in_before_the_release, {
    let rig = Rig::with(RouteKind::Haproxy).await;
    for (epoch, to) in [(2, 2), (3, 1)] {
        let client = rig.client().await;
        let from = rig.answers(&client).await;
        assert_ne!(from, region(to));
        let held = rig.done(hold(100, 60_000)).await;
        let Fact::Held { open, waiting: 0 } = &held else { panic!("{held:?}") };
        assert!(open.len() == 1 && open[0].contains("connections, which are cut"), "{open:?}");
        // It goes on as long as it may.
        assert_eq!(rig.answers(&client).await, from);
        rig.done(switch(epoch, to)).await;
        rig.done(switch(epoch, to)).await;
        assert!(value(&client, "SELECT 1").await.is_err());
        let view = rig.seen("nobody is left", |view| view.active == 0).await;
        assert_eq!((view.to, view.epoch), (Some(region(to)), Some(Epoch::read(epoch))));
        assert!(view.error.is_some_and(|error| error.contains("turns clients away")));
        // The operation goes on: whoever looks in between changes nothing.
        rig.adapter.keep_pointed(&region(to), Epoch::read(epoch)).await;
        assert!(rig.try_client().await.is_err());
        rig.done(release(epoch, to)).await;
        assert_eq!(rig.answers(&rig.client().await).await, region(to));
    }
});

scenario!(a_move_that_is_given_up_cuts_nobody, {
    let rig = Rig::with(RouteKind::Haproxy).await;
    let client = rig.client().await;
    rig.done(hold(100, 60_000)).await;
    rig.done(release(1, 1)).await;
    assert_eq!(rig.answers(&client).await, region(1));
});

scenario!(an_operation_that_nobody_ends_turns_clients_away_for_no_longer_than_was_said, {
    let rig = Rig::with(RouteKind::Haproxy).await;
    rig.done(hold(100, 700)).await;
    rig.done(switch(2, 2)).await;
    assert!(rig.try_client().await.is_err());
    // The agent ends there, and the next one knows.
    let restarted = rig.agent_restarted();
    let watching = tokio::spawn(async move { restarted.keep_watch().await });
    assert_eq!(rig.answers(&rig.client().await).await, region(2));
    watching.abort();
});

scenario!(one_that_is_restarted_serves_nobody_until_its_agent_has_told_it, {
    let mut rig = Rig::with(RouteKind::Haproxy).await;
    rig.done(release(2, 2)).await;
    rig.kill_route();
    rig.start_route();
    rig.seen("back", |view| view.process == tier0_core::observe::ProcessState::Running).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(rig.try_client().await.is_err());
    rig.adapter.keep_pointed(&region(2), Epoch::read(2)).await;
    assert_eq!(rig.answers(&rig.client().await).await, region(2));
});
