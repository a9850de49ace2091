//! Commanded switches against real servers and Sentinels: nothing acknowledged is lost, and every
//! Sentinel knows.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::{Duration, Instant};

use harness::Lab;
use harness::writers::{Writers, lost};
use tier0_config::RedisMode;
use tier0_core::observe::RedisRole;
use tier0_core::order::{Fact, Order, Outcome};

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_switches_under_load_lose_nothing() {
    let lab = Lab::running(3, RedisMode::Vote).await;
    for at in [0, 1] {
        lab.view(at).await;
    }
    let writers = Writers::begin(&lab, 3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut totals, mut epoch_before) = (Vec::new(), 0);
    for round in 0..20 {
        let (from, to) = (round % 2, 1 - round % 2);
        let timings = lab.switch(from, to).await;
        println!(
            "switch {round}: vote {:.1} held {:.1} (promote {:.1}) demote {:.1} ({}) announce {:.1} \
             total {:.1} ms, epoch {}",
            millis(timings.vote),
            millis(timings.held),
            millis(timings.promote),
            millis(timings.demote),
            timings.method,
            millis(timings.announce),
            millis(timings.total),
            timings.epoch
        );
        assert!(timings.epoch > epoch_before);
        epoch_before = timings.epoch;
        totals.push(timings.total);
        assert!(lab.agreed_on(to).await, "round {round}");
        // A machine that stalls for 300 ms makes a server look silent, which is no matter here.
        let (old, new) = (lab.running_view(from).await, lab.running_view(to).await);
        assert_eq!((old.role, new.role), (Some(RedisRole::Replica), Some(RedisRole::Master)));
        assert_eq!((old.min_replicas_to_write, new.min_replicas_to_write), (Some(1), Some(0)));
        assert_eq!(old.master, Some(lab.address(to).to_string()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let written = writers.end().await;
    totals.sort();
    println!(
        "20 switches: min {:.1} median {:.1} max {:.1} ms; {} acknowledged, {} errors, longest gap \
         of a writer {:.1} ms",
        millis(totals[0]),
        millis(totals[10]),
        millis(totals[19]),
        written.keys.len(),
        written.errors,
        millis(written.longest_gap)
    );
    assert!(written.keys.len() > 1000);
    assert_eq!(lost(&lab, 0, &written).await, 0);
    // A phantom Sentinel or an election of their own would show by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(lab.agreed_on(0).await);
    lab.done(0, Order::RedisValidate { token: "t1".into() }).await;
    assert!(matches!(
        lab.order(1, Order::RedisValidate { token: "t1".into() }).await,
        Outcome::Failed { .. }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_switch_leaves_writes_going() {
    let lab = Lab::running(3, RedisMode::Vote).await;
    let writers = Writers::begin(&lab, 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    lab.done(0, Order::RedisPause { pause_ms: 1000 }).await;
    lab.done(0, Order::RedisFence).await;
    assert_eq!(lab.view(0).await.min_replicas_to_write, Some(99));
    assert!(lab.ask_node(0, &["SET", "a", "b"]).await.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Repeating either is safe.
    lab.done(0, Order::RedisFence).await;
    lab.done(0, Order::RedisUnfence { min_replicas_to_write: 0 }).await;
    lab.done(0, Order::RedisUnfence { min_replicas_to_write: 0 }).await;
    lab.until("writes go on", Duration::from_secs(5), async || {
        lab.ask_node(0, &["SET", "a", "b"]).await.is_ok()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let written = writers.end().await;
    println!("{} acknowledged, {} errors", written.keys.len(), written.errors);
    assert_eq!(lost(&lab, 0, &written).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_ran_out_is_noticed_by_the_fence() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    lab.done(0, Order::RedisPause { pause_ms: 50 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    lab.ask_node(0, &["SET", "late", "a value that is longer than a ping"]).await.unwrap();
    let outcome = lab.order(0, Order::RedisFence).await;
    println!("{outcome}");
    assert!(matches!(outcome, Outcome::Failed { .. }));
    assert_eq!(lab.view(0).await.min_replicas_to_write, Some(99));
    // Asking again does not make it right.
    assert!(matches!(lab.order(0, Order::RedisFence).await, Outcome::Failed { .. }));
    lab.done(0, Order::RedisUnfence { min_replicas_to_write: 0 }).await;
    lab.done(0, Order::RedisPause { pause_ms: 1000 }).await;
    lab.done(0, Order::RedisFence).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_does_not_come_is_unknown_with_numbers() {
    let lab = Lab::running(0, RedisMode::Vote).await;
    let pause = Order::RedisPause { pause_ms: 50 };
    let Fact::Offset { mut position } = lab.done(0, pause).await else { panic!() };
    position.offset += 1_000_000;
    let begun = Instant::now();
    let order = Order::RedisAwait { position };
    let outcome = lab.nodes[1].perform(&order, Duration::from_millis(200), &|_| {}).await;
    println!("{outcome} after {:?}", begun.elapsed());
    assert!(matches!(outcome, Outcome::Unknown { why } if why.contains("bytes are missing")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_way_works_without_loss_after_the_fence() {
    let lab = Lab::running(3, RedisMode::Documented).await;
    assert_eq!(lab.nodes[0].take_authority().await.told, 3);
    let writers = Writers::begin(&lab, 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let pause = Order::RedisPause { pause_ms: 1000 };
    let Fact::Offset { position } = lab.done(0, pause).await else { panic!() };
    lab.done(1, Order::RedisAwait { position }).await;
    lab.done(0, Order::RedisFence).await;
    lab.done(1, Order::RedisSentinelFailover).await;
    println!("documented: {:?}", begun.elapsed());
    lab.done(0, lab.follow(1, 0)).await;
    lab.until("all Sentinels agree", Duration::from_secs(10), async || lab.agreed_on(1).await)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written = writers.end().await;
    println!("{} acknowledged, {} errors", written.keys.len(), written.errors);
    assert_eq!(lost(&lab, 1, &written).await, 0);
}
