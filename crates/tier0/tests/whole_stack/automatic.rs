//! The writer dies, and nobody commands anything: when it is moved, when it is not, and what is
//! said of it. Real processes are killed and frozen.

use rustix::process::Signal;
use serde_json::{Value, json};
use tier0_lab::ledger::WritePath;
use tier0_lab::processes;

use crate::stack::{
    Api, Ask, LOSSLESS, RECOVERY, Stack, acknowledged, kill, postgres, shared, thaw, until,
};
use crate::switching::sentinels_agree;

pub async fn set(stack: &Stack, mode: &str) {
    if mode == "armed" {
        // The scenario before this one may have moved the writer for the same cause.
        let stack = tier0_config::Stack::load(&stack.directory.join("stack.toml")).unwrap();
        let cool_down = std::time::Duration::from_millis(stack.limits.cool_down_ms);
        tokio::time::sleep(cool_down * 2).await;
    }
    let body = json!({ "mode": mode, "reason": "a test" }).to_string();
    stack.api().post("/automatic", Ask { body, ..Ask::default() }).await.succeeds();
    assert_eq!(stack.api().status().await.unwrap()["automatic"]["mode"], mode);
}

/// Wait until the writer is this region's.
async fn moved(api: &Api, region: &str) -> Value {
    until(RECOVERY, async || {
        let status = api.status().await?;
        let there = status["current_region"] == region && status["operation"].is_null();
        if there { Ok(status) } else { Err(format!("{:#}", status["automatic"])) }
    })
    .await
    .unwrap()
}

/// The newest change of the writer in the history.
async fn newest_move(api: &Api) -> Value {
    let history = api.get("/operations?limit=50").await.body;
    let all = history["operations"].as_array().unwrap().clone();
    let of_writer = |one: &&Value| {
        ["failover", "switchover", "failback"].contains(&one["kind"].as_str().unwrap())
            && one["code"] != "held-back"
    };
    all.iter().find(of_writer).unwrap().clone()
}

/// The rows that held a move back since the newest change of the writer, newest first.
async fn near_misses(api: &Api) -> Vec<String> {
    let history = api.get("/operations?limit=50").await.body;
    let all = history["operations"].as_array().unwrap().clone();
    let held = all.iter().filter(|one| one["code"] == "held-back");
    held.map(|one| one["requested_by"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn was_automatic(operation: &Value) {
    assert_eq!(operation["requested_by"], "decider row A14", "{operation:#}");
    assert_eq!(operation["result"], "succeeded", "{operation:#}");
}

async fn whole_again(stack: &Stack, region: &str) {
    let status = stack.api().protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], region);
    sentinels_agree(stack, &status, &[("cache", "tier0master")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postmaster_that_is_killed_moves_the_writer() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    stack.kill("main.region1");
    moved(&stack.api(), "region2").await;
    was_automatic(&newest_move(&stack.api()).await);
    run.goes_on().await;
    whole_again(&stack, "region2").await;
    // The Redis of the old side lived: it was left as in a planned move.
    run.lost_nothing(&WritePath::ALL).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_moves_the_writer_where_its_replica_has_more_than_its_disk() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    stack.kill("cache.region1");
    moved(&stack.api(), "region2").await;
    was_automatic(&newest_move(&stack.api()).await);
    run.goes_on().await;
    whole_again(&stack, "region2").await;
    run.lost_nothing(&LOSSLESS).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_killed_is_left_and_comes_back_as_standby() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let names = stack.started_in("region1");
    stack.kill_region("region1");
    let status = moved(&stack.api(), "region2").await;
    assert_eq!(status["protection"], "exposed", "{status:#}");
    was_automatic(&newest_move(&stack.api()).await);
    run.goes_on_with_one_copy().await;
    names.iter().for_each(|name| stack.start_again(name));
    whole_again(&stack, "region2").await;
    run.lost_nothing(&LOSSLESS).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_frozen_is_left_and_never_acknowledges_again() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let old = postgres(&stack, "main.region1").await.unwrap();
    let frozen = stack.freeze_region("region1");
    moved(&stack.api(), "region2").await;
    was_automatic(&newest_move(&stack.api()).await);
    run.goes_on_with_one_copy().await;
    thaw(&frozen);
    for number in 0..50 {
        let answer = acknowledged(&old, &format!("THAWED-{number}")).await;
        assert!(answer.is_err(), "the thawed old primary acknowledged write {number}");
        if old.is_closed() {
            break;
        }
    }
    whole_again(&stack, "region2").await;
    run.lost_nothing(&LOSSLESS).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postmaster_that_is_frozen_moves_the_writer_since_nobody_new_gets_in() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let postmaster = stack.process("main.region1").unwrap();
    processes::signal(postmaster, Signal::STOP);
    moved(&stack.api(), "region2").await;
    was_automatic(&newest_move(&stack.api()).await);
    run.goes_on_with_one_copy().await;
    whole_again(&stack, "region2").await;
    run.lost_nothing(&LOSSLESS).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_moves_nothing_and_that_is_said() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    stack.kill("agent.region1");
    let api = stack.api();
    let status = until(RECOVERY, async || {
        let status = api.status().await?;
        let said = status["automatic"]["near_miss"]["row"] == "A05";
        if said { Ok(status) } else { Err(format!("{:#}", status["automatic"])) }
    })
    .await
    .unwrap();
    assert_eq!(status["current_region"], "region1");
    assert_eq!(near_misses(&api).await.first().map(String::as_str), Some("decider row A05"));
    run.goes_on().await;
    stack.start_again("agent.region1");
    whole_again(&stack, "region1").await;
    run.lost_nothing(&WritePath::ALL).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_killed_ends_the_server_which_is_left() {
    let mut stack = shared().await;
    set(&stack, "armed").await;
    let run = stack.traffic().await;
    let session = postgres(&stack, "main.region1").await.unwrap();
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    // PostgreSQL ends every session when one process dies, and does not start again by itself.
    kill(processes::identify(pid).unwrap());
    moved(&stack.api(), "region2").await;
    was_automatic(&newest_move(&stack.api()).await);
    whole_again(&stack, "region2").await;
    run.lost_nothing(&WritePath::ALL).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observed_the_writer_is_started_where_it_is_and_a_near_miss_is_recorded() {
    let mut stack = shared().await;
    set(&stack, "observe").await;
    let run = stack.traffic().await;
    stack.kill("main.region1");
    let api = stack.api();
    until(RECOVERY, async || {
        let held = near_misses(&api).await;
        match held.first().map(String::as_str) {
            Some("decider row A13") => Ok(()),
            _ => Err(format!("held back by {held:?}")),
        }
    })
    .await
    .unwrap();
    run.goes_on().await;
    whole_again(&stack, "region1").await;
    run.lost_nothing(&LOSSLESS).await;
    set(&stack, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn automatic_moves_are_set_with_a_reason_and_for_a_while() {
    let stack = shared().await;
    let api = stack.api();
    let say = async |body: Value| {
        api.post("/automatic", Ask { body: body.to_string(), ..Ask::default() }).await
    };
    say(json!({ "mode": "armed" })).await.refuses(400, "bad-request");
    say(json!({ "mode": "sometimes", "reason": "x" })).await.refuses(400, "bad-request");
    say(json!({ "mode": "armed", "reason": "x", "for_seconds": 0 }))
        .await
        .refuses(400, "bad-request");
    say(json!({ "mode": "observe", "reason": "maintenance", "for_seconds": 1 })).await.succeeds();
    let status = api.status().await.unwrap();
    assert_eq!(status["automatic"]["reason"], "maintenance");
    assert!(status["automatic"]["until"].is_string(), "{status:#}");
    until(RECOVERY, async || {
        let status = api.status().await?;
        if status["automatic"]["mode"] == "off" { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await
    .unwrap();
}
