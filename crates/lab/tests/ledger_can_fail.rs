//! The ledger must be able to fail: with asynchronous replication and a killed primary it names
//! the acknowledged ids that are gone. A ledger that never does proves nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use support::redis_server::{Link, LinkState};
use support::{Runner, as_unprivileged, directory, postgres, redis_server};
use tier0_lab::ledger::{self, RedisSource, RedisTarget, Targets, Traffic, TrafficPlan, WritePath};

const FROZEN: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(20);

fn plan(directory: &Path) -> TrafficPlan {
    TrafficPlan {
        postgres_writers: 0,
        redis_writers: 0,
        redis_wait_writers: 0,
        rate: 200.0,
        ..TrafficPlan::moderate(directory.join("ledger"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_without_synchronous_replication_loses_what_the_frozen_standby_missed() {
    let name = "postgres_without_synchronous_replication_loses_what_the_frozen_standby_missed";
    if as_unprivileged(name) == Runner::Elsewhere {
        return;
    }
    let directory = directory();
    let primary = postgres::Server::primary(directory.path());
    let standby = primary.standby(directory.path());
    let targets =
        Targets { postgres: vec![postgres::target(&[&primary, &standby])], redis: Vec::new() };
    let plan = TrafficPlan { postgres_writers: 4, ..plan(directory.path()) };
    let traffic = Traffic::start(&plan, &targets).await.unwrap();
    traffic.wait_for_more(200, LIMIT).await.unwrap();
    let receiver = standby.wal_receiver();

    postgres::freeze(receiver);
    tokio::time::sleep(FROZEN).await;
    primary.kill();
    standby.promote();
    // The promotion has told the receiver to end by the time it thaws, so that it does not read
    // what still waits for it in the socket.
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill_process(receiver, Signal::CONT).unwrap();

    traffic.wait_for_more(100, LIMIT).await.unwrap();
    let summary = traffic.stop().await.unwrap();
    let report = ledger::check(&plan.directory, &targets).await.unwrap();
    print!("{}", report.text());
    let missing = report.missing(&[WritePath::Postgres]);
    let acknowledged = summary.path(WritePath::Postgres).unwrap().acknowledged;
    assert_eq!(report.checked(&WritePath::ALL), acknowledged);
    assert!(!missing.is_empty(), "nothing is missing of {acknowledged}");
    assert!(missing[0].contains("-pg-"), "a missing id is named: {}", missing[0]);
    assert!((missing.len() as u64) < acknowledged, "most of it is there");
    assert!(report.duplicates().is_empty());
    let largest = summary.path(WritePath::Postgres).unwrap().latencies.largest().unwrap();
    assert!(largest.length() >= FROZEN, "the gap from the kill on is seen: {largest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_loses_what_the_replica_missed_except_what_was_waited_for() {
    let name = "redis_loses_what_the_replica_missed_except_what_was_waited_for";
    if as_unprivileged(name) == Runner::Elsewhere {
        return;
    }
    let directory = directory();
    let mut master = redis_server::Server::start(directory.path(), "a", None).await;
    let link = Link::to(master.address).await;
    let replica = redis_server::Server::start(directory.path(), "b", Some(link.entrance)).await;
    replica.until_linked().await;
    let target = RedisTarget {
        name: "cache".to_owned(),
        servers: vec![master.address, replica.address],
        source: RedisSource::Roles,
        routers: Vec::new(),
        password: None,
    };
    let targets = Targets { postgres: Vec::new(), redis: vec![target] };
    let plan = TrafficPlan { redis_writers: 2, redis_wait_writers: 2, ..plan(directory.path()) };
    let traffic = Traffic::start(&plan, &targets).await.unwrap();
    traffic.wait_for_more(100, LIMIT).await.unwrap();

    link.set(LinkState::Held);
    tokio::time::sleep(FROZEN).await;
    master.kill();
    link.set(LinkState::Cut);
    assert_eq!(replica.ask("REPLICAOF NO ONE").await.unwrap(), "OK");

    // Nobody confirms for the new master, so only writes without WAIT are acknowledged from now on.
    let so_far = traffic.acknowledged(WritePath::Redis);
    for _ in 0..400 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        if traffic.acknowledged(WritePath::Redis) > so_far + 50 {
            break;
        }
    }
    traffic.stop().await.unwrap();
    let report = ledger::check(&plan.directory, &targets).await.unwrap();
    print!("{}", report.text());
    let missing = report.missing(&[WritePath::Redis]);
    assert!(!missing.is_empty(), "nothing is missing");
    assert!(missing[0].contains("-redis-"), "a missing id is named: {}", missing[0]);
    assert!(report.missing(&[WritePath::RedisWait]).is_empty(), "WAIT kept its promise");
    assert!(report.checked(&[WritePath::RedisWait]) >= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_trouble_misses_nothing() {
    if as_unprivileged("a_run_without_trouble_misses_nothing") == Runner::Elsewhere {
        return;
    }
    let directory = directory();
    let primary = postgres::Server::primary(directory.path());
    let targets = Targets { postgres: vec![postgres::target(&[&primary])], redis: Vec::new() };
    let plan = TrafficPlan { postgres_writers: 3, ..plan(directory.path()) };
    let traffic = Traffic::start(&plan, &targets).await.unwrap();
    traffic.wait_for_more(150, LIMIT).await.unwrap();
    let summary = traffic.stop().await.unwrap();
    let report = ledger::check(&plan.directory, &targets).await.unwrap();
    assert_eq!(report.missing(&WritePath::ALL), Vec::<&str>::new());
    assert_eq!(report.duplicates(), Vec::<&str>::new());
    assert_eq!(summary.path(WritePath::Postgres).unwrap().unknown, 0);
    assert!(report.checked(&WritePath::ALL) >= 150);
}
