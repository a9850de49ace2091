//! One part of a stack stops where it is (SIGSTOP), has lost its disk, or a standby ends: who notices,
//! what is done, and that all is as before when it goes on. The stack is armed all the time, and the
//! writer is moved only where that is said.

use std::time::Duration;

use serde_json::Value;
use tier0_lab::fault::Fault;
use tier0_lab::ledger::WritePath;

use crate::automatic::set;
use crate::network::{break_it, epoch, mend};
use crate::stack::{
    LOSSLESS, RECOVERY, Stack, acknowledged, long, redis, shared, until, writer_session,
};

/// What is seen of a part that is frozen.
enum Noticed {
    /// Commits wait for it: the standby leaves, and they go on with one copy.
    Leaves,
    /// Nothing that anybody waits for: writes go on in two copies.
    Nothing,
    /// The status says this of a node.
    Says(&'static str, &'static str),
    /// A move is held back by this row.
    HeldBack(&'static str),
}

const FROZEN: [(&str, Noticed); 7] = [
    ("main.region2/walreceiver", Noticed::Leaves),
    ("main.region1/walsender", Noticed::Leaves),
    ("main.region2", Noticed::Leaves),
    ("main.region1/checkpointer", Noticed::Nothing),
    ("main.region2/startup", Noticed::Nothing),
    ("cache.region2", Noticed::Says("cache.region2", "silent")),
    ("agent.region1", Noticed::HeldBack("A05")),
];

async fn shows(stack: &Stack, what: &str, holds: impl Fn(&Value) -> bool) {
    until(RECOVERY, async || {
        let status = stack.api().status().await?;
        if holds(&status) { Ok(()) } else { Err(format!("not {what}: {status:#}")) }
    })
    .await
    .unwrap();
}

fn state_of(status: &Value, node: &str) -> String {
    let datastores = status["datastores"].as_array().unwrap();
    let mut nodes = datastores.iter().flat_map(|one| one["nodes"].as_array().unwrap());
    let found = nodes.find(|one| one["node"] == node).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_frozen_moves_nothing_and_is_whole_again_when_it_goes_on() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let before = epoch(&stack).await;
    let count = if long() { FROZEN.len() } else { 1 };
    for (target, noticed) in &FROZEN[..count] {
        println!("frozen: {target}");
        break_it(&stack, target, Fault::Freeze).await;
        match noticed {
            Noticed::Leaves => {
                shows(&stack, "exposed", |status| status["protection"] == "exposed").await;
                run.goes_on_with_one_copy().await;
            }
            Noticed::Nothing => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                run.goes_on().await;
                let status = stack.api().status().await.unwrap();
                assert_eq!(status["protection"], "protected", "{status:#}");
            }
            Noticed::Says(node, state) => {
                shows(&stack, state, |status| state_of(status, node) == *state).await;
                run.goes_on_with_one_copy().await;
            }
            Noticed::HeldBack(row) => {
                shows(&stack, row, |status| status["automatic"]["near_miss"]["row"] == *row).await;
                run.goes_on().await;
            }
        }
        mend(&stack).await;
        run.goes_on().await;
        assert_eq!(epoch(&stack).await, before, "the writer was moved");
    }
    run.lost_nothing(&WritePath::ALL).await;
    set(&stack, "off").await;
}

/// Its session hangs, and nobody else's: the server lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_frozen_holds_up_its_own_client_only() {
    if !long() {
        return;
    }
    let stack = shared().await;
    set(&stack, "armed").await;
    let before = epoch(&stack).await;
    let session = writer_session(&stack).await.unwrap();
    break_it(&stack, "main.region1/backend", Fault::Freeze).await;
    let held = tokio::spawn(async move { acknowledged(&session, "FROZEN").await });
    for number in 0..12 {
        let other = writer_session(&stack).await.unwrap();
        acknowledged(&other, &format!("BESIDE-{number}")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(!held.is_finished(), "a frozen backend answered");
    mend(&stack).await;
    held.await.unwrap().unwrap();
    assert_eq!(epoch(&stack).await, before, "the writer was moved");
    set(&stack, "off").await;
}

/// Its agent and the orchestrator get no answer for three windows; its replica is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_frozen_is_left_and_never_acknowledges_again() {
    if !long() {
        return;
    }
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let mut old = redis(&stack, "cache.region1").await.unwrap();
    break_it(&stack, "cache.region1", Fault::Freeze).await;
    shows(&stack, "moved", |status| {
        status["current_region"] == "region2" && status["operation"].is_null()
    })
    .await;
    run.goes_on_with_one_copy().await;
    let status = mend(&stack).await;
    assert_eq!(status["current_region"], "region2");
    let mut set_key = ::redis::cmd("SET");
    let write = set_key.arg(&["thawed", "yes"]).query_async::<String>(&mut old);
    let answer = tokio::time::timeout(Duration::from_secs(5), write).await;
    assert!(!matches!(answer, Ok(Ok(_))), "the old master acknowledged {answer:?}");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
    set(&stack, "off").await;
}

/// The standby's server ends, and its agent has it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_killed_comes_back_and_moves_nothing() {
    if !long() {
        return;
    }
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let before = epoch(&stack).await;
    let member = |status: &Value| {
        let datastores = status["datastores"].as_array().unwrap();
        datastores.iter().map(|one| one["takeover"].to_string()).collect::<String>()
    };
    let of_before = member(&stack.api().status().await.unwrap());
    stack.kill("main.region2");
    shows(&stack, "another membership", |status| {
        let of_now = member(status);
        of_now != of_before && of_now.contains("main.region2#")
    })
    .await;
    mend(&stack).await;
    run.goes_on().await;
    assert_eq!(epoch(&stack).await, before, "the writer was moved");
    run.lost_nothing(&WritePath::ALL).await;
    set(&stack, "off").await;
}

/// A master that ended and has lost its disk is not started over nothing, which would empty its
/// replica as well: somebody moves to the replica, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_lost_its_disk_does_not_empty_its_replica() {
    if !long() {
        return;
    }
    let mut stack = shared().await;
    set(&stack, "off").await;
    let run = stack.traffic().await;
    break_it(&stack, "agent.region1", Fault::Freeze).await;
    stack.kill("cache.region1");
    let data = stack.directory.join("region1/cache/data");
    let _ = std::fs::remove_dir_all(data.join("appendonlydir"));
    let _ = std::fs::remove_file(data.join("dump.rdb"));
    let mut replica = redis(&stack, "cache.region2").await.unwrap();
    let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut replica).await.unwrap();
    assert!(keys > 0);
    tier0_lab::fault::heal(&mut stack.state(), None).unwrap();
    until(RECOVERY, async || {
        let history = stack.api().get("/operations?limit=20").await.body;
        let all = history["operations"].to_string();
        if all.contains("redis-data-lost") { Ok(()) } else { Err(all) }
    })
    .await
    .unwrap();
    let still: u64 = ::redis::cmd("DBSIZE").query_async(&mut replica).await.unwrap();
    assert_eq!(still, keys);
    stack.api().failover("region2").await.succeeds();
    stack.api().protected(RECOVERY).await.unwrap();
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}
