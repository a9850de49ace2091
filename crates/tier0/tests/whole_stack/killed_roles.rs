//! Roles killed at many moments of a switch, under traffic, and started again: each time a known
//! state, nothing held up, nothing acknowledged lost, protected again.

use std::time::Duration;

use serde_json::Value;
use tier0_lab::ledger::WritePath;

use crate::stack::{Ask, LOSSLESS, RECOVERY, Stack, long, shared, until};
use crate::switching::sentinels_agree;

/// The region that is not the writer, once the stack is protected.
async fn other_region(stack: &Stack) -> &'static str {
    let status = stack.api().protected(RECOVERY).await.unwrap();
    if status["current_region"] == "region1" { "region2" } else { "region1" }
}

/// Demand a known state: protected, the next switch would begin, and the newest change of the
/// writer is over, in a way that fits where the writer is.
pub async fn known_state(stack: &Stack) -> Value {
    let api = stack.api();
    let status = api.protected(RECOVERY).await.unwrap();
    until(RECOVERY, async || {
        let ready = api.read("/readiness").await?;
        if ready.body["ready"] == true { Ok(()) } else { Err(ready.text) }
    })
    .await
    .unwrap();
    let listed = api.read("/operations?limit=50").await.unwrap();
    let moves = ["switchover", "failover", "failback"];
    let all = listed.body["operations"].as_array().unwrap();
    let newest = all.iter().find(|one| moves.contains(&one["kind"].as_str().unwrap()));
    if let Some(newest) = newest.filter(|one| one["result"] != "refused") {
        let arrived = newest["target_region"] == status["current_region"];
        let result = newest["result"].as_str().unwrap();
        let fits = match result {
            "succeeded" | "done-with-exceptions" => arrived,
            "aborted" => !arrived,
            "failed" => true,
            _ => false,
        };
        assert!(fits, "{result}, with the writer in {}: {newest:#}", status["current_region"]);
    }
    status
}

/// Command a switch, kill a role after a while, start it again.
async fn kill_during_a_switch(stack: &Stack, name: &str, after: Duration) -> String {
    let target = other_region(stack).await;
    let api = stack.api();
    let asked = tokio::spawn(async move {
        let path = format!("/failover/{target}");
        api.try_post(&path, Ask::default()).await
    });
    tokio::time::sleep(after).await;
    stack.kill(name);
    stack.start_again(name);
    match asked.await.unwrap() {
        Ok(answer) => {
            let body = answer.body;
            format!("{} {} {} {}", answer.status, body["result"], body["error"], body["remarks"])
        }
        Err(_) => "no answer".to_owned(),
    }
}

async fn kill_at_moments(name: &str, count: u64, lossless: &[WritePath]) {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    for number in 0..count {
        let after = Duration::from_millis(5 + number * 300 / count);
        let answer = kill_during_a_switch(&stack, name, after).await;
        let status = known_state(&stack).await;
        println!("{name} killed after {after:?}: {answer}, writer {}", status["current_region"]);
        run.goes_on().await;
    }
    let status = known_state(&stack).await;
    sentinels_agree(&stack, &status, &[("cache", "tier0master")]).await;
    run.lost_nothing(lossless).await;
}

// An agent of the old side that ends in mid-switch is a side that does not cooperate: the switch
// goes on without it, as if its region had died, and for Redis that keeps what `WAIT` confirmed.

fn times() -> u64 {
    if long() { 30 } else { 10 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_orchestrator_killed_at_many_moments_of_a_switch_goes_on_where_it_was() {
    kill_at_moments("orchestrator.witness", times(), &WritePath::ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_regions_agent_killed_at_many_moments_of_a_switch_goes_on_where_it_was() {
    kill_at_moments("agent.region1", times() / 2, &LOSSLESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_regions_agent_killed_at_many_moments_of_a_switch_goes_on_where_it_was() {
    kill_at_moments("agent.region2", times() / 2, &LOSSLESS).await;
}
