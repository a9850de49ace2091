//! The writer's region is gone, killed or frozen as a whole, and comes back.

use std::time::Instant;

use crate::stack::{LOSSLESS, RECOVERY, Stack, acknowledged, postgres, redis, shared, thaw, until};
use crate::switching::sentinels_agree;

/// Commanded while the old side does not answer. The operator may have to ask again until the
/// orchestrator has noticed the silence.
async fn fail_over(stack: &Stack) {
    let answer = stack.api().failover("region2").await;
    answer.succeeds();
    assert_eq!(answer.body["epoch"], stack.api().status().await.unwrap()["epoch"]);
}

async fn protected_again(stack: &Stack) {
    let status = stack.api().protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region2");
    sentinels_agree(stack, &status, &[("cache", "tier0master")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_whose_every_process_is_killed_is_left_and_comes_back_as_standby() {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    let names = stack.started_in("region1");
    let killed = stack.kill_region("region1");
    assert!(killed >= 5, "only {killed} processes were there to kill");
    let began = Instant::now();
    fail_over(&stack).await;
    println!("failed over {:?} after the last process of region1 was killed", began.elapsed());
    run.goes_on_with_one_copy().await;
    let status = stack.api().status().await.unwrap();
    assert_eq!(status["protection"], "exposed", "{status:#}");
    names.iter().for_each(|name| stack.start_again(name));
    protected_again(&stack).await;
    run.lost_nothing(&LOSSLESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_was_killed_before_anybody_noticed_is_left_at_once() {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    let names = stack.started_in("region1");
    // The command is on its way while the region dies.
    let api = stack.api();
    let asked = tokio::spawn(async move { api.failover("region2").await });
    stack.kill_region("region1");
    let answer = asked.await.unwrap();
    assert!([200, 500, 504].contains(&answer.status), "{answer:?}");
    if answer.status != 200 {
        println!("answered {}, asked again", answer.text);
        until(RECOVERY, async || match stack.api().failover("region2").await {
            again if again.status == 200 || again.body["code"] == "already-writer" => Ok(()),
            again => Err(again.text),
        })
        .await
        .unwrap();
    }
    run.goes_on_with_one_copy().await;
    names.iter().for_each(|name| stack.start_again(name));
    protected_again(&stack).await;
    run.lost_nothing(&LOSSLESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_frozen_and_thaws_is_never_writable_again() {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    let old = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&old, "BEFORE-THE-FREEZE").await.unwrap();
    let mut old_redis = redis(&stack, "cache.region1").await.unwrap();
    let frozen = stack.freeze_region("region1");
    assert!(frozen.len() >= 5, "only {} processes were there to freeze", frozen.len());
    fail_over(&stack).await;
    run.goes_on_with_one_copy().await;
    // Asked of the frozen server, answered, if at all, once it goes on.
    let early = tokio::spawn(async move {
        let answer = acknowledged(&old, "ASKED-WHILE-FROZEN").await;
        (old, answer)
    });
    tokio::task::yield_now().await;
    thaw(&frozen);
    let waited = async {
        for tries in 1..=100 {
            let answer = ::redis::pipe()
                .cmd("SET")
                .arg(&["thawed", "yes"])
                .cmd("WAIT")
                .arg(&["1", "20"])
                .query_async::<(String, u32)>(&mut old_redis)
                .await;
            match answer {
                Ok((_, replicas)) => assert_eq!(replicas, 0, "WAIT counted a replica"),
                Err(_) => return tries,
            }
        }
        100
    };
    let (waited, early) = tokio::join!(waited, early);
    println!("the old master was asked {waited} times before it refused");
    let (old, answer) = early.unwrap();
    println!("asked while frozen: {answer:?}");
    assert!(answer.is_err(), "the thawed old primary acknowledged a write");
    for number in 0..50 {
        let answer = acknowledged(&old, &format!("THAWED-{number}")).await;
        assert!(answer.is_err(), "the thawed old primary acknowledged write {number}");
        if old.is_closed() {
            break;
        }
    }
    protected_again(&stack).await;
    assert!(old.is_closed(), "the session with the old primary outlived it");
    let now = postgres(&stack, "main.region2").await.unwrap();
    let count = "SELECT count(*) FROM device_telemetry WHERE device_id LIKE 'THAWED-%' \
                 OR device_id = 'ASKED-WHILE-FROZEN'";
    let found: i64 = now.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(found, 0, "a write of the old side came through");
    run.lost_nothing(&LOSSLESS).await;
}
