//! What comes right by itself: a Sentinel that was away, a slot that is gone, a rewind that was
//! cut off, a primary that was killed.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tier0_lab::ledger::WritePath;
use tier0_lab::processes;

use crate::stack::{
    Api, LOSSLESS, RECOVERY, Stack, admin, kill, postgres, shared, taken_off, until,
};
use crate::switching::sentinels_agree;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_was_down_during_a_switch_agrees_when_it_is_back() {
    let mut stack = shared().await;
    let api = stack.api();
    for name in ["sentinel.witness", "sentinel.region1"] {
        let status = api.protected(RECOVERY).await.unwrap();
        let target = if status["current_region"] == "region1" { "region2" } else { "region1" };
        let run = stack.traffic().await;
        stack.kill(name);
        api.failover(target).await.succeeds();
        run.goes_on().await;
        stack.start_again(name);
        let status = api.protected(RECOVERY).await.unwrap();
        sentinels_agree(&stack, &status, &[("cache", "tier0master")]).await;
        run.lost_nothing(&WritePath::ALL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_slot_is_gone_comes_back() {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    let slots = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical'";
    let before = admin(&stack, "main.region1", slots).unwrap();
    assert_eq!(before.len(), 1, "{before:?}");
    let frozen = stack.process("main.region2").unwrap();
    processes::signal(frozen, Signal::STOP);
    until(RECOVERY, async || {
        // The standby takes its slot again at once, so this is a race that must be won once.
        let _ = admin(
            &stack,
            "main.region1",
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active",
        );
        let drop = format!("SELECT pg_drop_replication_slot('{}')", before[0]);
        admin(&stack, "main.region1", &drop)
    })
    .await
    .unwrap();
    processes::signal(frozen, Signal::CONT);
    until(RECOVERY, async || {
        let now = admin(&stack, "main.region1", slots)?;
        if now == before { Ok(()) } else { Err(format!("slots: {now:?}")) }
    })
    .await
    .unwrap();
    stack.api().protected(RECOVERY).await.unwrap();
    run.goes_on().await;
    run.lost_nothing(&WritePath::ALL).await;
    stack.api().failover("region2").await.succeeds();
}

/// Kill region1 when its PostgreSQL has written what nobody else has: nothing of that was
/// acknowledged, and it must be taken back before the node can follow.
async fn kill_region1_ahead_of_the_standby(stack: &Stack) {
    let senders = admin(stack, "main.region1", "SELECT pid FROM pg_stat_replication").unwrap();
    for sender in &senders {
        let sender = processes::identify(sender.parse().unwrap()).unwrap();
        processes::signal(sender, Signal::STOP);
    }
    until(RECOVERY, async || {
        let sql = "SELECT pg_current_wal_flush_lsn() - sent_lsn > 0 FROM pg_stat_replication";
        match admin(stack, "main.region1", sql)?.first().map(String::as_str) {
            Some("t") => Ok(()),
            other => Err(format!("not ahead yet: {other:?}")),
        }
    })
    .await
    .unwrap();
    let primary = stack.process("main.region1").unwrap();
    stack.kill_region("region1");
    taken_off(primary).await;
}

/// How the node's last rejoin was done, as the journal has it.
async fn way_back(api: &Api, node: &str) -> String {
    let listed = api.get("/operations?limit=50").await;
    newest(&listed.body, "rejoin", node).unwrap()["timeline"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_is_ahead_is_rewound() {
    let mut stack = shared().await;
    let api = stack.api();
    let run = stack.traffic().await;
    let names = stack.started_in("region1");
    kill_region1_ahead_of_the_standby(&stack).await;
    api.failover("region2").await.succeeds();
    run.goes_on_with_one_copy().await;
    names.iter().for_each(|name| stack.start_again(name));
    api.protected(RECOVERY).await.unwrap();
    let way = way_back(&api, "main.region1").await;
    assert!(way.contains("by rewind") && way.contains("bytes diverged, kept at"), "{way}");
    run.lost_nothing(&LOSSLESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_that_is_cut_off_is_made_good() {
    let mut stack = shared().await;
    let api = stack.api();
    let run = stack.traffic().await;
    let names = stack.started_in("region1");
    kill_region1_ahead_of_the_standby(&stack).await;
    api.failover("region2").await.succeeds();
    run.goes_on_with_one_copy().await;
    let uid = stack.state().uid;
    names.iter().for_each(|name| stack.start_again(name));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut cut = 0;
    while cut < 2 && Instant::now() < deadline {
        let all = processes::of_lab(&stack.directory, uid);
        if let Some(rewind) = all.iter().find(|one| one.program == "pg_rewind") {
            stack.kill("agent.region1");
            kill(rewind.identity);
            stack.start_again("agent.region1");
            cut += 1;
        } else if cut > 0 && api.status().await.is_ok_and(|now| now["protection"] == "protected") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("cut off {cut} rewinds");
    assert!(cut > 0, "no rewind was seen");
    let status = api.protected(RECOVERY).await.unwrap();
    println!("{}", way_back(&api, "main.region1").await);
    sentinels_agree(&stack, &status, &[("cache", "tier0master")]).await;
    run.lost_nothing(&LOSSLESS).await;
}

/// The newest operation of this kind on this node.
fn newest<'a>(operations: &'a Value, kind: &str, node: &str) -> Option<&'a Value> {
    let all = operations["operations"].as_array()?;
    all.iter().find(|one| one["kind"] == kind && one["node"] == node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_killed_is_started_again_and_admits_nobody_before_it_is_proven() {
    let mut stack = shared().await;
    let api = stack.api();
    let epoch = api.status().await.unwrap()["epoch"].clone();
    let run = stack.traffic().await;
    stack.kill("main.region1");
    // The first session that is let in must find that its commit waits for the standby.
    let session = until(RECOVERY, async || postgres(&stack, "main.region1").await).await.unwrap();
    let names: String =
        session.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get(0);
    assert!(names.starts_with("FIRST 1 (\"main.region2#"), "{names}");
    let streaming = admin(
        &stack,
        "main.region1",
        "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'",
    )
    .unwrap();
    assert_eq!(streaming, ["sync"]);
    run.goes_on().await;
    let status = api.protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region1");
    assert_eq!(status["epoch"], epoch);
    let listed = api.get("/operations?limit=50").await;
    let restart = newest(&listed.body, "restart", "main.region1").unwrap();
    assert_eq!(restart["result"], "succeeded", "{restart:#}");
    let steps: Vec<&str> = restart["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["start", "admit"]);
    run.lost_nothing(&WritePath::ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_killed_is_started_again_with_what_its_disk_has() {
    let mut stack = shared().await;
    let api = stack.api();
    let run = stack.traffic().await;
    stack.kill("cache.region1");
    run.goes_on().await;
    let status = api.protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region1");
    sentinels_agree(&stack, &status, &[("cache", "tier0master")]).await;
    // With `appendfsync everysec` a killed server has everything that it wrote to the kernel.
    run.lost_nothing(&WritePath::ALL).await;
}
