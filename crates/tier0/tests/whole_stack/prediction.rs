//! What `tier0 check` predicts, against what the switch then takes. Only with `TIER0_LONG`: a figure
//! of a machine that does other things beside it says nothing.

use crate::stack::{RECOVERY, long, shared, until};

const SWITCHES: usize = 20;
/// Two in each direction before: the first is cold, and the second is predicted from that one alone.
const BEFORE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_switches_take_about_as_long_as_was_predicted() {
    if !long() {
        println!("SKIPPED: takes a minute or two, and an idle machine; TIER0_LONG=1 runs it");
        return;
    }
    let stack = shared().await;
    let api = stack.api();
    let mut off = Vec::new();
    for number in 0..SWITCHES + BEFORE {
        let status = api.protected(RECOVERY).await.unwrap();
        let target = if status["current_region"] == "region1" { "region2" } else { "region1" };
        let predicted = until(RECOVERY, async || {
            let ready = api.try_get("/readiness").await?;
            match ready.body["ready"] == true {
                true => Ok(ready.body["prediction"].clone()),
                false => Err(ready.text),
            }
        })
        .await
        .unwrap();
        let answer = api.failover(target).await;
        answer.succeeds();
        let took = answer.body["total_failover_time"].as_f64().unwrap() * 1000.0;
        let Some(expected) = predicted["milliseconds"].as_f64() else { continue };
        if number >= BEFORE {
            println!("to {target}: predicted {expected:.0} ms, took {took:.0} ms");
            off.push((took - expected).abs() / expected);
        }
    }
    off.sort_by(f64::total_cmp);
    let median = off[off.len() / 2];
    let within = off.iter().filter(|one| **one <= 0.25).count();
    println!(
        "off by {:.0} % in the median, {:.0} % at most; {within} of {} within 25 %",
        median * 100.0,
        off[off.len() - 1] * 100.0,
        off.len()
    );
    assert!(median <= 0.25, "the prediction is off by {:.0} % in the median", median * 100.0);
}
