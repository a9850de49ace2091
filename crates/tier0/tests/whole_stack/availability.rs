//! The account of availability: what it says of a planned switch, of a region that is lost, and after
//! the orchestrator was killed.

use std::time::Duration;

use serde_json::Value;

use crate::stack::{RECOVERY, Stack, shared, until};

/// Longer than a probe waits, by enough that several are not served.
const OUTAGE: Duration = Duration::from_millis(2_500);

const WAYS: [&str; 6] = [
    "cache read",
    "cache write",
    "main read",
    "main write",
    "main write through pool.region1",
    "main write through pool.region2",
];

async fn account(stack: &Stack) -> Value {
    stack.api().get("/availability").await.body
}

fn way<'a>(account: &'a Value, name: &str) -> &'a Value {
    let ways = account["ways"].as_array().unwrap();
    ways.iter().find(|way| way["way"] == name).unwrap_or_else(|| panic!("no {name}: {account:#}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Wait until every way has been served for another second.
async fn served(stack: &Stack) -> Value {
    let before = account(stack).await;
    until(RECOVERY, async || {
        let now = account(stack).await;
        for name in WAYS {
            let ways = now["ways"].as_array().unwrap();
            let Some(found) = ways.iter().find(|way| way["way"] == name) else {
                return Err(format!("{name} is not probed yet"));
            };
            let old = before["ways"].as_array().unwrap().iter().find(|way| way["way"] == name);
            let old = old.map_or(0, |old| number(&old["served_ms"]));
            if number(&found["served_ms"]) < old + 1_000 {
                return Err(format!("{name}: {found}"));
            }
        }
        Ok(now)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_region_is_downtime_with_a_cause_and_the_account_outlives_the_orchestrator() {
    let stack = shared().await;
    let before = served(&stack).await;
    assert_eq!(before["objective_ms_a_year"], 3_156);
    assert_eq!(before["objective_percent"], "99.9999899");

    let names = stack.started_in("region1");
    stack.kill_region("region1");
    // A probe that is served within a second of when it was due was held: that is no downtime.
    tokio::time::sleep(OUTAGE).await;
    let answer = stack.api().failover("region2").await;
    answer.succeeds();
    let id = answer.operation().to_owned();
    let down = number(&way(&before, "main write")["down_ms"]);
    // A window has ended once it was served again, and no late probe can change that any more.
    let after = until(Duration::from_secs(30), async || {
        let now = account(&stack).await;
        let main = way(&now, "main write");
        let newest = &main["windows"][0];
        match number(&main["down_ms"]) > down && newest["operation_id"] == id.as_str() {
            true => Ok(now),
            false => Err(format!("{main:#}")),
        }
    })
    .await
    .unwrap();
    let newest = &way(&after, "main write")["windows"][0];
    println!("region1 lost: {newest}");
    assert_eq!(newest["kind"], "failover");
    let spent = |body: &Value| number(&body["down_in_a_year_ms"]);
    assert!(spent(&after) >= spent(&before) + number(&newest["milliseconds"]), "{after:#}");
    let left = after["budget_left_ms"].as_i64().unwrap();
    assert_eq!(left, 3_156 - i64::try_from(spent(&after)).unwrap());
    assert!(number(&after["exposed_ms"]) > number(&before["exposed_ms"]), "{after:#}");

    names.iter().for_each(|name| stack.start_again(name));
    stack.api().protected(RECOVERY).await.unwrap();
    let name = "orchestrator.witness";
    stack.kill(name);
    stack.start_again(name);
    stack.api().protected(RECOVERY).await.unwrap();
    let back = served(&stack).await;
    assert_eq!(back["since"], before["since"]);
    let windows = way(&back, "main write")["windows"].as_array().unwrap().clone();
    assert!(windows.iter().any(|one| one["operation_id"] == id.as_str()), "{windows:?}");
    let status = stack.api().status().await.unwrap();
    assert_eq!(status["availability"]["objective_ms_a_year"], 3_156);
    let text = stack.run("tier0 availability", "region2");
    assert!(text.contains("main write through pool.region1"), "{text}");
    assert!(text.contains(&id), "{text}");
}
