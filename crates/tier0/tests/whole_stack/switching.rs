//! Switches of whole stacks: several datastores in one epoch, and many switches without help.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};
use tier0_lab::ledger::WritePath;
use tier0_lab::processes;

use crate::stack::{
    Ask, RECOVERY, Sentinel, Stack, Token, acknowledged, kill, postgres, redis, shared, until,
};

/// The addresses of a datastore's nodes: the writer's, then the other.
fn nodes(status: &Value, datastore: &str) -> (SocketAddr, SocketAddr) {
    let writer = status["current_region"].as_str().unwrap();
    let all = status["datastores"].as_array().unwrap();
    let of = all.iter().find(|one| one["name"] == datastore).unwrap();
    let address = |at_writer: bool| {
        let nodes = of["nodes"].as_array().unwrap();
        let node =
            nodes.iter().find(|one| one["node"].as_str().unwrap().ends_with(writer) == at_writer);
        node.unwrap()["address"].as_str().unwrap().parse().unwrap()
    };
    (address(true), address(false))
}

/// Demand that every Sentinel knows the new master, one replica, two peers, no phantom, and all
/// the same config epoch.
pub async fn sentinels_agree(stack: &Stack, status: &Value, names: &[(&str, &str)]) {
    for (datastore, name) in names {
        let (master, replica) = nodes(status, datastore);
        until(RECOVERY, async || {
            let mut epochs = Vec::new();
            for sentinel in Sentinel::all(stack) {
                epochs.push(sentinel.agrees(name, names.len(), master, replica).await?);
            }
            match epochs.windows(2).all(|pair| pair[0] == pair[1]) {
                true => Ok(()),
                false => Err(format!("config epochs of {name} differ: {epochs:?}")),
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_each_kind_move_in_one_epoch() {
    let mut stack = Stack::up_with(&["--postgres", "2", "--redis", "2"]);
    let api = stack.api();
    let before = api.protected(RECOVERY).await.unwrap();
    let run = stack.traffic().await;
    let answer = api.failover("region2").await;
    answer.succeeds();
    let epoch = before["epoch"].as_u64().unwrap() + 1;
    assert_eq!(answer.body["epoch"], epoch, "{answer:?}");
    let promoted = |step: &str| -> Vec<String> {
        let steps = answer.body["timeline"].as_array().unwrap();
        let of = steps.iter().filter(|one| one["step"] == step);
        of.map(|one| one["datastore"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(promoted("promote"), ["main", "main-2"]);
    assert_eq!(promoted("promote-redis"), ["cache", "cache-2"]);
    run.goes_on().await;
    for node in ["main.region2", "main-2.region2"] {
        let session = postgres(&stack, node).await.unwrap();
        let standby: bool =
            session.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
        assert!(!standby, "{node} is still a standby");
    }
    for node in ["cache.region2", "cache-2.region2"] {
        let mut session = redis(&stack, node).await.unwrap();
        let () = ::redis::cmd("SET")
            .arg(&["written", "afterwards"])
            .query_async(&mut session)
            .await
            .unwrap_or_else(|error| panic!("{node}: {error}"));
    }
    let after = api.protected(RECOVERY).await.unwrap();
    assert_eq!(after["epoch"], epoch);
    sentinels_agree(&stack, &after, &[("cache", "tier0master"), ("cache-2", "tier0master-2")])
        .await;
    run.lost_nothing(&WritePath::ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_switches_back_and_forth_without_help_lose_nothing() {
    let mut stack = shared().await;
    let api = stack.api();
    let first = api.status().await.unwrap()["epoch"].as_u64().unwrap();
    let run = stack.traffic().await;
    let mut times = Vec::new();
    for number in 1..=20 {
        let target = if number % 2 == 1 { "region2" } else { "region1" };
        let answer = api.failover(target).await;
        answer.succeeds();
        times.push(answer.body["total_failover_time"].as_f64().unwrap());
        run.goes_on().await;
        let status = api
            .protected(RECOVERY)
            .await
            .unwrap_or_else(|why| panic!("after switch {number}, to {target}: {why}"));
        assert_eq!(status["epoch"], first + number, "{status:#}");
        sentinels_agree(&stack, &status, &[("cache", "tier0master")]).await;
    }
    let session = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&session, "AFTER-TWENTY").await.unwrap();
    run.lost_nothing(&WritePath::ALL).await;
    times.sort_by(f64::total_cmp);
    println!("20 switches under traffic: median {:.3} s, longest {:.3} s", times[10], times[19]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datastore_that_does_not_promote_stays_closed_and_is_brought_along() {
    let stack = Stack::up_with(&["--postgres", "2"]);
    let api = stack.api();
    api.protected(RECOVERY).await.unwrap();
    // Without its marker the data directory is no member, and its promotion is refused (P3).
    let marker = stack.directory.join("region2/main-2/data.member");
    let aside = marker.with_extension("aside");
    std::fs::rename(&marker, &aside).unwrap();
    let answer = api.failover("region2").await;
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(answer.body["success"], false, "{answer:?}");
    assert!(answer.body["error"].as_str().unwrap().contains("main-2"), "{answer:?}");
    let recovers = async |node: &str| -> bool {
        let session = postgres(&stack, node).await.unwrap();
        session.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0)
    };
    assert!(!recovers("main.region2").await, "the other datastore was released");
    assert!(recovers("main-2.region2").await, "it stays closed");
    std::fs::rename(&aside, &marker).unwrap();
    let status = api.protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region2");
    assert!(!recovers("main-2.region2").await, "it was retried forward");
    what_can_never_be_opened_gives_way(&stack).await;
}

/// The writer is in region2 and moves to region1, where the disk of one datastore is lost.
async fn what_can_never_be_opened_gives_way(stack: &Stack) {
    let api = stack.api();
    let before = postgres(stack, "main-2.region2").await.unwrap();
    acknowledged(&before, "BEFORE-THE-DISK-WAS-LOST").await.unwrap();
    std::fs::remove_file(stack.directory.join("region1/main-2/data.member")).unwrap();
    let first = api.failover("region1").await;
    assert_eq!(first.status, 500, "{first:?}");
    // Its agent starts a server that has ended, to promote it.
    let agent = stack.process("agent.region1").unwrap();
    processes::signal(agent, Signal::STOP);
    kill(stack.process("main-2.region1").unwrap());
    std::fs::remove_dir_all(stack.directory.join("region1/main-2/data")).unwrap();
    processes::signal(agent, Signal::CONT);
    // What was opened is protected again, though the operation is not over.
    until(RECOVERY, async || {
        let status = api.status().await?;
        let all = status["datastores"].as_array().ok_or("no datastores")?;
        let is =
            |name: &str| all.iter().find(|one| one["name"] == name).map(|one| &one["protection"]);
        let retried = status["operation"]["operation_id"] == first.operation();
        if retried && is("main") == Some(&"protected".into()) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await
    .unwrap();
    let refused = api.failover("region2").await;
    refused.refuses(409, "not-in-takeover-set");
    let body =
        json!({ "accept_loss": true, "reason": "the disk is gone", "requested_by": "a test" });
    let ask = Ask { token: Token::AcceptLoss, body: body.to_string(), key: None };
    api.post("/failover/region2", ask).await.succeeds();
    let session = postgres(stack, "main-2.region2").await.unwrap();
    acknowledged(&session, "AFTER-THE-WAY-BACK").await.unwrap();
    let device = "BEFORE-THE-DISK-WAS-LOST";
    let found = session
        .query("SELECT 1 FROM device_telemetry WHERE device_id = $1", &[&device])
        .await
        .unwrap();
    assert_eq!(found.len(), 1, "what was acknowledged before is there");
    // The other copy is a person's to give up.
    until(RECOVERY, async || {
        let status = api.status().await?.to_string();
        if status.contains("P18") { Ok(()) } else { Err(status) }
    })
    .await
    .unwrap();
    api.post("/rebuild/main-2.region1", Ask::default()).await.succeeds();
    let status = api.protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region2");
}
