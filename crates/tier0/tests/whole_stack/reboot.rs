//! Everything is killed at once, as when the power goes in both regions and at the witness.

use std::time::{Duration, Instant};

use crate::stack::{LOSSLESS, RECOVERY, acknowledged, postgres, shared, taken_off, until};

/// How long the agents are left alone.
const ALONE: Duration = Duration::from_secs(3);

const SERVERS: [&str; 4] = ["main.region1", "main.region2", "cache.region1", "cache.region2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_nobody_is_writable_before_the_record_says_so() {
    let mut stack = shared().await;
    // Away from home, so that "the first region" is the wrong answer.
    stack.api().failover("region2").await.succeeds();
    stack.api().protected(RECOVERY).await.unwrap();
    let run = stack.traffic().await;
    run.goes_on().await;
    let mut names = stack.started_in("region1");
    names.extend(stack.started_in("region2"));
    let servers = SERVERS.map(|name| stack.process(name).unwrap());
    stack.kill("orchestrator.witness");
    stack.kill("sentinel.witness");
    let killed = stack.kill_region("region2") + stack.kill_region("region1");
    assert!(killed >= 10, "only {killed} processes were there to kill");
    for server in servers {
        taken_off(server).await;
    }

    for name in names.iter().filter(|name| name.starts_with("agent.")) {
        stack.start_again(name);
    }
    let began = Instant::now();
    while began.elapsed() < ALONE {
        for name in SERVERS {
            assert!(stack.process(name).is_none(), "{name} was started without the record");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    stack.start_again("orchestrator.witness");
    let began = Instant::now();
    let mut first = None;
    let mut looks = 0;
    until(RECOVERY, async || {
        looks += 1;
        for region in ["region1", "region2"] {
            let Ok(session) = postgres(&stack, &format!("main.{region}")).await else { continue };
            if acknowledged(&session, &format!("AFTER-THE-POWER-CUT-{region}")).await.is_ok() {
                assert_eq!(region, "region2", "a write was acknowledged where the writer is not");
                first = first.or(Some(began.elapsed()));
            }
        }
        stack.api().protected(Duration::from_millis(1)).await
    })
    .await
    .unwrap();
    for name in names.iter().filter(|name| !name.starts_with("agent.")) {
        stack.start_again(name);
    }
    stack.start_again("sentinel.witness");
    let status = stack.api().protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region2", "{status:#}");
    println!(
        "after the orchestrator's start: {looks} looks, first write after {first:?}, protected after \
         {:?}",
        began.elapsed()
    );
    assert!(looks > 1 && first.is_some(), "nobody looked while the servers came up");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}
