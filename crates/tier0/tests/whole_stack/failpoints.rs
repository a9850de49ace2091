//! A role that ends, hangs or does a thing twice at a named place of a switch, and is started
//! again: each time a known state, nothing acknowledged lost, protected again.

use std::time::Duration;

use serde_json::Value;
use tier0_core::steps::{Side, Step, row};
use tier0_lab::account::Account;
use tier0_lab::files;

use crate::killed_roles::known_state;
use crate::stack::{Ask, LOSSLESS, RECOVERY, Stack, long, shared, until};
use crate::switching::sentinels_agree;

/// `point step action`, as the failpoint file has it.
const USUAL: [&str; 13] = [
    "agent.received checkpoint exit",
    "agent.persisted fence exit",
    "agent.performed stop exit",
    "agent.kept stop hang",
    "agent.persisted promote exit",
    "agent.performed promote hang",
    "agent.persisted promote-redis twice",
    "agent.performed demote exit",
    "orchestrator.store before exit",
    "orchestrator.stored after exit",
    "orchestrator.stored finish exit",
    "orchestrator.send promote exit",
    "orchestrator.outcome receive hang",
];

const STEPS: [&str; 17] = [
    "checkpoint",
    "vote",
    "hold-route",
    "drain",
    "receive",
    "pause",
    "catch-up",
    "fence",
    "stop",
    "promote",
    "promote-redis",
    "demote",
    "announce",
    "switch-route",
    "release-route",
    "validate",
    "validate-redis",
];

/// Steps whose command only looks: an agent keeps nothing of one, and so has no such place.
const LOOKS: [&str; 3] = ["drain", "receive", "catch-up"];

fn every_case() -> Vec<String> {
    let mut cases = Vec::new();
    for point in ["received", "persisted", "performed", "kept"] {
        for step in STEPS {
            if point != "received" && LOOKS.contains(&step) {
                continue;
            }
            cases.extend(["exit", "hang"].map(|action| format!("agent.{point} {step} {action}")));
        }
    }
    for step in STEPS.iter().filter(|step| !LOOKS.contains(step)) {
        cases.push(format!("agent.persisted {step} twice"));
    }
    for step in STEPS {
        for action in ["exit", "hang"] {
            cases.push(format!("orchestrator.send {step} {action}"));
            cases.push(format!("orchestrator.outcome {step} {action}"));
        }
        cases.push(format!("orchestrator.send {step} twice"));
    }
    for point in ["store", "stored"] {
        for phase in ["before", "after", "finish", "idle"] {
            cases.extend(
                ["exit", "hang"].map(|action| format!("orchestrator.{point} {phase} {action}")),
            );
        }
    }
    cases
}

/// The roles of which a case fires in one, when the writer is in `from`. Each region has a route:
/// whichever is told first.
fn roles(case: &str, from: &str) -> Vec<String> {
    if case.starts_with("orchestrator") {
        return vec!["orchestrator.witness".to_owned()];
    }
    let name = case.split(' ').nth(1).unwrap();
    let step = Step::ALL.iter().find(|step| step.id() == name).unwrap();
    let regions = match (row(*step).side, from) {
        (Side::Route, _) => ["region1", "region2"].as_slice(),
        (Side::Old, "region1") => &["region1"],
        (Side::Old, _) => &["region2"],
        (_, "region1") => &["region2"],
        (_, _) => &["region1"],
    };
    regions.iter().map(|region| format!("agent.{region}")).collect()
}

pub fn arm(stack: &Stack, case: &str) {
    let account = Account::unprivileged().unwrap();
    files::write_private(&stack.failpoint_file(), format!("{case}\n").as_bytes(), &account)
        .unwrap();
}

pub fn is_armed(stack: &Stack) -> bool {
    std::fs::read_to_string(stack.failpoint_file()).is_ok_and(|text| !text.trim().is_empty())
}

/// One case. Returns how the request was answered.
async fn play(stack: &Stack, case: &str) -> String {
    let status = stack.api().protected(RECOVERY).await.unwrap();
    let from = status["current_region"].as_str().unwrap().to_owned();
    let target = if from == "region1" { "region2" } else { "region1" };
    let roles = roles(case, &from);
    arm(stack, case);
    let api = stack.api();
    let asked =
        tokio::spawn(
            async move { api.try_post(&format!("/failover/{target}"), Ask::default()).await },
        );
    let fired = until(Duration::from_secs(10), async || match is_armed(stack) {
        true => Err("not reached".to_owned()),
        false => Ok(()),
    })
    .await;
    arm(stack, "");
    assert!(fired.is_ok(), "{case}: {}", fired.unwrap_err());
    match case.rsplit(' ').next().unwrap() {
        "exit" => {
            let ended = until(RECOVERY, async || {
                let ended = roles.iter().find(|role| stack.process(role).is_none());
                ended.ok_or_else(|| format!("{roles:?} run still"))
            })
            .await;
            stack.start_again(ended.unwrap());
        }
        "hang" => {
            // What waits for it must get by for a while; then somebody ends it.
            tokio::time::sleep(Duration::from_millis(700)).await;
            for role in &roles {
                stack.kill(role);
                stack.start_again(role);
            }
        }
        _ => {}
    }
    short(asked.await.unwrap().map(|answer| answer.body))
}

fn short(answer: Result<Value, String>) -> String {
    match answer {
        Ok(body) => format!("{} {}", body["result"], body["error"]),
        Err(_) => "no answer".to_owned(),
    }
}

/// An orchestrator that ends when it has noted a key and has not begun what it stands for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_orchestrator_ended_before_it_began_is_begun_by_the_next() {
    let stack = shared().await;
    stack.api().protected(RECOVERY).await.unwrap();
    let ask = Ask { key: Some("noted-and-not-begun".to_owned()), ..Ask::default() };
    arm(&stack, "orchestrator.noted key exit");
    stack.api().try_post("/failover/region2", ask.clone()).await.unwrap_err();
    until(RECOVERY, async || match stack.process("orchestrator.witness") {
        Some(_) => Err("it runs still".to_owned()),
        None => Ok(()),
    })
    .await
    .unwrap();
    arm(&stack, "");
    stack.start_again("orchestrator.witness");
    let status = stack.api().protected(RECOVERY).await.unwrap();
    assert_eq!(status["current_region"], "region1");
    let api = stack.api();
    let (one, other) = tokio::join!(
        api.post("/failover/region2", ask.clone()),
        api.post("/failover/region2", ask)
    );
    one.succeeds();
    other.succeeds();
    assert_eq!(one.operation(), other.operation());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_end_or_hang_at_every_place_of_a_switch() {
    let all = every_case();
    let cases: Vec<String> = match std::env::var("TIER0_FAILPOINTS") {
        Ok(named) => all.into_iter().filter(|case| case.contains(&named)).collect(),
        Err(_) if long() => all,
        Err(_) => {
            println!(
                "SKIPPED: all but {} of {} cases; TIER0_LONG=1 plays all, TIER0_FAILPOINTS=TEXT \
                 those whose line holds a text",
                USUAL.len(),
                all.len()
            );
            USUAL.map(str::to_owned).to_vec()
        }
    };
    assert!(!cases.is_empty(), "no case is named so");
    let mut stack = shared().await;
    for case in cases {
        let run = stack.traffic().await;
        let answer = play(&stack, &case).await;
        let status = known_state(&stack).await;
        println!("{case}: {answer}, writer {}", status["current_region"]);
        run.goes_on().await;
        sentinels_agree(&stack, &status, &[("cache", "tier0master")]).await;
        run.lost_nothing(&LOSSLESS).await;
    }
}
