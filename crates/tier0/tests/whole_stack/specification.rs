//! The specification's four tests, against the API as it is documented: field names, seconds, and
//! the one bound on time that a test asserts. And its script, as it stands in `scripts`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::stack::{Answer, BINARY, RECOVERY, Stack, acknowledged, root, shared, writer_session};

/// The fields that the specification's answer has.
fn has_the_specified_fields(answer: &Answer, target: &str) {
    answer.succeeds();
    assert_eq!(answer.kind, "application/json", "{answer:?}");
    assert_eq!(answer.body["target_region"], target, "{answer:?}");
    let total = answer.body["total_failover_time"].as_f64().expect("seconds");
    assert!(total > 0.0, "{answer:?}");
    assert_eq!(answer.body["tier0_compliant"], total < 5.0, "{answer:?}");
    let steps = &answer.body["steps"];
    for step in
        ["health_check", "database_promotion", "redis_failover", "routing_update", "validation"]
    {
        let seconds = steps[step].as_f64().unwrap_or_else(|| panic!("{step} of {answer:?}"));
        assert!((0.0..=total).contains(&seconds), "{step} took {seconds} of {total} s");
    }
    let timestamp = answer.body["timestamp"].as_str().expect("a time");
    assert!(timestamp.contains('T') && timestamp.ends_with('Z'), "{timestamp}");
    assert!(answer.body.get("error").is_none(), "{answer:?}");
}

async fn current_region(stack: &Stack) -> String {
    stack.api().status().await.unwrap()["current_region"].as_str().unwrap().to_owned()
}

async fn exists(stack: &Stack, device: &str) -> bool {
    let session = writer_session(stack).await.unwrap();
    let count = "SELECT count(*) FROM device_telemetry WHERE device_id = $1";
    session.query_one(count, &[&device]).await.unwrap().get::<_, i64>(0) == 1
}

#[tokio::test]
async fn test_failover_timing() {
    let stack = shared().await;
    let start = Instant::now();
    let answer = stack.api().failover("region2").await;
    let duration = start.elapsed();
    has_the_specified_fields(&answer, "region2");
    assert!(duration < Duration::from_secs(5), "the failover took {duration:?}");
    assert_eq!(answer.body["tier0_compliant"], true, "{answer:?}");
    let total = answer.body["total_failover_time"].as_f64().unwrap();
    assert!(total <= duration.as_secs_f64(), "{total} s claimed, {duration:?} seen");
}

#[tokio::test]
async fn test_no_data_loss() {
    let stack = shared().await;
    let session = writer_session(&stack).await.unwrap();
    let records: Vec<String> =
        (0..100).map(|number| format!("FAILOVER-TEST-{}-{number}", std::process::id())).collect();
    for record in &records {
        acknowledged(&session, record).await.unwrap();
    }
    has_the_specified_fields(&stack.api().failover("region2").await, "region2");
    for record in &records {
        assert!(exists(&stack, record).await, "record {record} lost during failover");
    }
}

#[tokio::test]
async fn test_write_after_failover() {
    let stack = shared().await;
    has_the_specified_fields(&stack.api().failover("region2").await, "region2");
    let record = format!("POST-FAILOVER-TEST-{}", std::process::id());
    let session = writer_session(&stack).await.unwrap();
    acknowledged(&session, &record).await.unwrap();
    assert!(exists(&stack, &record).await);
}

#[tokio::test]
async fn test_failback() {
    let stack = shared().await;
    has_the_specified_fields(&stack.api().failover("region2").await, "region2");
    assert_eq!(current_region(&stack).await, "region2");
    // The specification's test goes back at once. Here the region that was left must first be
    // proven to hold everything again: until then going back is refused.
    stack.api().protected(RECOVERY).await.unwrap();
    let back = stack.api().failover("region1").await;
    has_the_specified_fields(&back, "region1");
    assert_eq!(back.body["kind"], "failback");
    assert_eq!(current_region(&stack).await, "region1");
}

/// Run the specification's script, and say how it ended and what it printed.
fn script(stack: &Stack, target: &str) -> (Option<i32>, String) {
    let output = Command::new("bash")
        .arg(root().join("scripts/test-complete-failover.sh"))
        .arg(target)
        .env("TIER0", BINARY)
        .env("INSTANCE", stack.instance.to_string())
        .env("DIRECTORY", &stack.directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}{errors}");
    (output.status.code(), said)
}

#[tokio::test]
async fn the_script_passes_there_and_back_and_can_fail() {
    let stack = shared().await;
    for target in ["region2", "region1"] {
        let (code, said) = script(&stack, target);
        assert!(said.contains("\n✓ FAILOVER TEST PASSED\n"), "{said}");
        assert_eq!(code, Some(0), "{said}");
        let mut rest = said.as_str();
        for line in [
            "=== Tier-0 Failover Test ===",
            "1. Pre-Failover State",
            "streaming | sync",
            "2. Executing Failover...",
            "\"success\": true",
            "Tier-0 Compliant (<5s): true",
            "3. Post-Failover Validation",
            target,
            "\nf\n",
            "4. Write Validation Test",
            "INSERT 0 1",
            "FAILOVER-VALIDATION",
            "5. API Response Test",
            "=== Test Results ===",
            "=== Test Complete ===",
        ] {
            let (_, after) = rest.split_once(line).unwrap_or_else(|| panic!("{line} is missing"));
            rest = after;
        }
        stack.api().protected(RECOVERY).await.unwrap();
    }
    // It is there already, so nothing is done, and the script says that this is no failover.
    let (code, said) = script(&stack, "region1");
    assert!(said.contains("✗ FAILOVER TEST FAILED"), "{said}");
    assert!(!said.contains("PASSED"), "{said}");
    assert_eq!(code, Some(1), "{said}");
}
