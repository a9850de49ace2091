//! `protection = "max-protection"`: commits never go on with a single copy by themselves, and a
//! person can let them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stack::{
    Api, Ask, LOSSLESS, RECOVERY, Stack, acknowledged, admin, until, writer_session,
};

/// Whether the stack was ever exposed since it came up: each time is in the record's reasons, and
/// who let commits go on is in the history.
async fn was_exposed(api: &Api) -> bool {
    let history = api.get("/operations?limit=100").await.body;
    let all = history["operations"].as_array().unwrap().clone();
    let exposed = |one: &Value| one["kind"] == "expose" && one["result"] == "succeeded";
    all.iter().any(exposed) || api.status().await.unwrap()["protection"] == "exposed"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_max_protection_commits_wait_for_a_second_copy_until_somebody_exposes() {
    let mut stack = Stack::up_with(&["--max-protection"]);
    let api = stack.api();
    let run = stack.traffic().await;

    // The standby's server ends: it follows and joins anew while commits wait.
    stack.kill("main.region2");
    until(RECOVERY, async || {
        let status = api.status().await?;
        let members = status["datastores"][1]["takeover"].to_string()
            + &status["datastores"][0]["takeover"].to_string();
        // A join that came too late was undone, and the next one has another number.
        let anew = members.contains("main.region2#") && !members.contains("main.region2#1\"");
        if anew { Ok(()) } else { Err(members) }
    })
    .await
    .unwrap();
    api.protected(RECOVERY).await.unwrap();
    run.goes_on().await;

    // A planned move: the new writer waits until the old side has joined.
    api.failover("region2").await.succeeds();
    api.protected(RECOVERY).await.unwrap();
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
    assert!(!was_exposed(&api).await);

    // The writer's region dies, and the other one is asked to go on alone.
    let names = stack.started_in("region2");
    stack.kill_region("region2");
    let check = until(RECOVERY, async || {
        let check = api.get("/readiness").await.body;
        let found = check["findings"].as_array().cloned().unwrap_or_default();
        let waits = found.iter().find(|one| one["code"] == "commits-will-wait").cloned();
        waits.filter(|one| one["level"] == "warn").ok_or(format!("{check:#}"))
    })
    .await
    .unwrap();
    assert!(check["sentence"].as_str().unwrap().contains("tier0 expose main"), "{check:#}");
    api.failover("region1").await.succeeds();
    let session = writer_session(&stack).await.unwrap();
    let waiting = tokio::spawn(async move {
        let answer = acknowledged(&session, "WAITS-FOR-A-SECOND-COPY").await;
        (session, answer)
    });
    let (session, answer) = tokio::time::timeout(RECOVERY, waiting).await.unwrap().unwrap();
    assert!(answer.is_err(), "the write was acknowledged, and one copy has it");
    let status = api.status().await.unwrap();
    assert_eq!(status["protection"], "at-risk", "{status:#}");
    // Who probes whether clients are served does not take their places while they wait.
    let probers = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tier0-prober'";
    let probers: u32 = admin(&stack, "main.region1", probers).unwrap()[0].parse().unwrap();
    assert!((1..=12).contains(&probers), "{probers} sessions of probers");
    let reason = status["protection_reason"].as_str().unwrap();
    assert!(reason.contains("commits wait until a standby has joined"), "{reason}");
    assert!(!was_exposed(&api).await);
    let metrics = api.get("/metrics").await.text;
    let mode = "tier0_protection_mode{datastore=\"main\",mode=\"max-protection\"} 1";
    assert!(metrics.contains(mode), "{metrics}");

    let body = json!({ "reason": "a test" }).to_string();
    api.post("/expose/main", Ask { body, ..Ask::default() }).await.succeeds();
    assert!(was_exposed(&api).await);
    drop(session);
    let session = writer_session(&stack).await.unwrap();
    acknowledged(&session, "GOES-ON-WITH-ONE-COPY").await.unwrap();
    names.iter().for_each(|name| stack.start_again(name));
    api.protected(RECOVERY).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), acknowledged(&session, "PROTECTED"))
        .await
        .unwrap()
        .unwrap();
}
