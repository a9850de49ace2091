//! A hold waits for open transactions within bounds, and ends by itself.

use std::time::{Duration, Instant};

use tier0_core::order::{Fact, Order, Outcome};

use crate::harness::*;
use crate::scenario;

scenario!(an_idle_transaction_does_not_hold_the_hold_up_and_ends_where_it_began, {
    let rig = Rig::new().await;
    let idle = rig.client().await;
    idle.batch_execute("SET application_name = 'idler'").await.unwrap();
    idle.batch_execute("BEGIN").await.unwrap();
    assert_eq!(rig.answers(&idle).await, region(1));
    let held = rig.done(hold(100, 60_000)).await;
    let Fact::Held { open, waiting: 0 } = &held else { panic!("{held:?}") };
    // Whose it is, for whoever asks why it was cut.
    let named = "user=tier0user, app=idler, server process ";
    assert!(open.len() == 1 && open[0].starts_with(named), "{open:?}");
    let client = rig.client();
    let waits = async {
        let client = client.await;
        rig.answers(&client).await
    };
    let moved = async {
        rig.seen("one waits", |view| view.held && view.waiting == 1).await;
        rig.done(release(2, 2)).await;
    };
    let (waited, ()) = tokio::join!(waits, moved);
    assert_eq!(waited, region(2));
    assert_eq!(rig.answers(&idle).await, region(1));
    idle.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rig.answers(&idle).await, region(2));
});

scenario!(a_statement_that_runs_is_waited_for, {
    let rig = Rig::new().await;
    let client = rig.client().await;
    let slow = value(&client, "SELECT pg_sleep(0.5)");
    let held = async {
        rig.seen("it runs", |view| view.active == 1).await;
        rig.done(hold(20_000, 60_000)).await
    };
    let (slow, held) = tokio::join!(slow, held);
    slow.unwrap();
    assert_eq!(held, Fact::Held { open: Vec::new(), waiting: 0 });
    rig.done(release(1, 1)).await;
});

scenario!(one_long_transaction_holds_nobody_else_up_and_ends_where_it_began, {
    let rig = Rig::new().await;
    let (long, client) = (rig.client().await, rig.client().await);
    rig.answers(&client).await;
    let runs = value(&long, "SELECT pg_sleep(1.5), inet_server_port()");
    let moved = async {
        rig.seen("it runs", |view| view.active == 1).await;
        // The drain is over long before it is.
        let held = rig.done(hold(100, 60_000)).await;
        let Fact::Held { open, .. } = &held else { panic!("{held:?}") };
        assert_eq!(open.len(), 1, "{open:?}");
        rig.done(switch(2, 2)).await;
        rig.done(release(2, 2)).await;
        assert_eq!(rig.answers(&client).await, region(2));
        assert_eq!(rig.seen("it still runs", |view| view.active >= 1).await.to, Some(region(2)));
    };
    let (runs, ()) = tokio::join!(runs, moved);
    runs.unwrap();
    assert_eq!(rig.answers(&long).await, region(2));
});

scenario!(a_client_that_goes_and_comes_again_in_the_hold_waits_too, {
    let rig = Rig::new().await;
    let client = rig.client().await;
    rig.answers(&client).await;
    rig.done(hold(5_000, 60_000)).await;
    drop(client);
    let again = async {
        let client = rig.client().await;
        rig.answers(&client).await
    };
    let moved = async {
        rig.seen("it waits again", |view| view.held && view.waiting == 1).await;
        rig.done(release(2, 2)).await;
    };
    let (answered, ()) = tokio::join!(again, moved);
    assert_eq!(answered, region(2));
});

scenario!(nobody_is_held_for_longer_than_was_said_though_nobody_releases, {
    let rig = Rig::new().await;
    let client = rig.client().await;
    let watching = tokio::spawn({
        let adapter = rig.adapter.clone();
        async move { adapter.keep_watch().await }
    });
    let began = Instant::now();
    rig.done(hold(100, 700)).await;
    assert_eq!(rig.answers(&client).await, region(1));
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    rig.seen("released", |view| !view.held).await;

    // The agent ends while clients are held, and the next one knows.
    rig.done(hold(100, 700)).await;
    watching.abort();
    assert!(watching.await.is_err());
    let waits = rig.answers(&client);
    let restarted = rig.agent_restarted();
    let next = tokio::spawn(async move { restarted.keep_watch().await });
    assert_eq!(waits.await, region(1));
    rig.seen("released", |view| !view.held).await;
    next.abort();
});

scenario!(an_operators_own_pause_is_left_alone, {
    let rig = Rig::new().await;
    let admin = admin(&rig).await;
    let watching = tokio::spawn({
        let adapter = rig.adapter.clone();
        async move { adapter.keep_watch().await }
    });
    admin.simple_query("PAUSE postgres").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(rig.adapter.observe().await.held);
    admin.simple_query("RESUME postgres").await.unwrap();
    watching.abort();
});

scenario!(many_clients_are_held_and_all_go_on, {
    let rig = Rig::new().await;
    let count: usize = if std::env::var_os("TIER0_LONG").is_some() { 5_000 } else { 200 };
    // One file for each of them, here and in PgBouncer.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let count = limit.map_or(count, |limit| count.min(limit as usize / 3));
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(rig.client().await);
    }
    rig.done(hold(5_000, 60_000)).await;
    let waiting: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(async move { value(&client, "SELECT 1").await }))
        .collect();
    rig.seen("all wait", |view| view.waiting as usize == count).await;
    rig.done(release(2, 2)).await;
    for one in waiting {
        assert_eq!(one.await.unwrap().unwrap(), "1");
    }
    println!("{count} clients were held");
});

scenario!(an_order_for_a_server_is_refused, {
    let rig = Rig::new().await;
    let outcome = rig.adapter.perform(&Order::PostgresStop, LIMIT).await;
    assert!(matches!(&outcome, Outcome::Refused { refusal } if refusal.code == "wrong-kind"));
});

async fn admin(rig: &Rig) -> tokio_postgres::Client {
    let route = &rig.settings.route;
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(&route.socket_directory)
        .port(route.address.port())
        .user("pgbouncer")
        .dbname("pgbouncer");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
