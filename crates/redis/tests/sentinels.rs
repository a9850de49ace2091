//! Sentinels that are down, that come back, and that must not act by themselves.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::Lab;
use tier0_config::RedisMode;
use tier0_core::observe::{RedisRole, SentinelView};
use tier0_core::order::{Fact, Order, Outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_was_away_is_told_when_it_is_back() {
    let mut lab = Lab::running(3, RedisMode::Vote).await;
    lab.sentinels[2].stop();
    let Fact::Voted { epoch, votes, of } = lab.done(0, Order::RedisVote).await else { panic!() };
    assert_eq!((votes, of), (2, 3));
    let pause = Order::RedisPause { pause_ms: 1000 };
    let Fact::Offset { position } = lab.done(0, pause).await else { panic!() };
    lab.done(1, Order::RedisAwait { position }).await;
    lab.done(0, Order::RedisFence).await;
    lab.done(1, Order::RedisPromote { accept_loss: false }).await;
    lab.done(0, lab.follow(1, 0)).await;
    let announced = lab.done(1, Order::RedisAnnounce { epoch: Some(epoch) }).await;
    assert!(matches!(announced, Fact::Announced { agree: 2, of: 3, .. }), "{announced:?}");
    lab.start_sentinel(2);
    let begun = std::time::Instant::now();
    let mut repaired = 0;
    lab.until("the third is back and right", Duration::from_secs(20), async || {
        lab.view(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        repaired += lab.nodes[1].repair_sentinels(lab.id(1)).await.told;
        // The old master's agent may say nothing.
        assert_eq!(lab.nodes[0].repair_sentinels(lab.id(0)).await.told, 0);
        lab.agreed_on(1).await
    })
    .await;
    println!("right after {:?}, told {repaired} times", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(lab.agreed_on(1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_there_is_no_vote_and_the_rest_is_told() {
    let mut lab = Lab::running(3, RedisMode::Vote).await;
    lab.sentinels[1].stop();
    lab.sentinels[2].stop();
    let outcome = lab.order(0, Order::RedisVote).await;
    println!("{outcome}");
    assert!(matches!(&outcome, Outcome::Failed { why } if why.starts_with("1 of 3")));
    lab.done(0, Order::RedisPause { pause_ms: 1000 }).await;
    lab.done(0, Order::RedisFence).await;
    lab.done(1, Order::RedisPromote { accept_loss: false }).await;
    lab.done(0, lab.follow(1, 0)).await;
    let announced = lab.done(1, Order::RedisAnnounce { epoch: None }).await;
    assert!(matches!(announced, Fact::Announced { agree: 1, of: 3, .. }), "{announced:?}");
    for at in [1, 2] {
        lab.start_sentinel(at);
    }
    lab.until("all are right", Duration::from_secs(20), async || {
        lab.view(1).await;
        lab.nodes[1].repair_sentinels(lab.id(1)).await;
        lab.agreed_on(1).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tier0s_authority_sentinels_move_nothing() {
    let lab = Lab::running(3, RedisMode::Vote).await;
    let told = lab.nodes[0].take_authority().await;
    assert_eq!((told.told, told.of), (3, 3));
    assert_eq!(lab.nodes[0].take_authority().await.already, 3);
    lab.kill(0);
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(lab.view(1).await.role, Some(RedisRole::Replica));
    }
    for sentinel in 0..3 {
        let flags = lab.sentinel_fields(sentinel).await.remove("flags").unwrap();
        println!("flags 8 s after the kill: {flags}");
        assert!(flags.contains("s_down") && !flags.contains("o_down"), "{flags}");
    }
    // And tier0 still moves it.
    let Fact::Voted { epoch, .. } = lab.done(1, Order::RedisVote).await else { panic!() };
    lab.done(1, Order::RedisPromote { accept_loss: false }).await;
    let begun = std::time::Instant::now();
    lab.done(1, Order::RedisAnnounce { epoch: Some(epoch) }).await;
    println!("announced in {:?}", begun.elapsed());
    lab.done(0, lab.follow(1, 0)).await;
    lab.until("all agree", Duration::from_secs(5), async || lab.agreed_on(1).await).await;
    // Repeating changes nothing.
    let again = lab.done(1, Order::RedisAnnounce { epoch: Some(epoch) }).await;
    assert!(matches!(again, Fact::Announced { agree: 3, of: 3, epoch: same } if same == epoch));
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(lab.agreed_on(1).await);
    assert_eq!(lab.view(1).await.role, Some(RedisRole::Master));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observing_tells_what_each_sentinel_says() {
    let mut lab = Lab::running(3, RedisMode::Vote).await;
    lab.sentinels[0].stop();
    let (gone, there) =
        (lab.sentinels[0].address.to_string(), lab.sentinels[1].address.to_string());
    lab.until("the views are there", Duration::from_secs(5), async || {
        let views = lab.view(0).await.sentinels;
        let known = |view: &SentinelView| view.master == Some(lab.address(0).to_string());
        known(&views[&there]) && views[&gone].error.as_deref() != Some("not asked yet")
    })
    .await;
    let views = lab.view(0).await.sentinels;
    println!("{:?}\n{:?}", views[&gone], views[&there]);
    assert!(views[&gone].error.is_some() && views[&gone].master.is_none());
    assert_eq!((views[&there].peers, views[&there].replicas), (Some(2), Some(1)));
}
