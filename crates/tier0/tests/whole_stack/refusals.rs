//! What is refused because it could lose something or cannot work, each with its number; and what
//! it takes to accept loss.

use rustix::process::Signal;
use serde_json::{Value, json};
use tier0_lab::account::Account;
use tier0_lab::processes;

use crate::stack::{
    Answer, Api, Ask, RECOVERY, Stack, Token, acknowledged, postgres, shared, taken_off, until,
};

/// Ask until the refusal has this code: what is judged takes a moment to be known.
async fn refused_with(api: &Api, ask: &Ask, code: &str) -> Answer {
    until(RECOVERY, async || {
        // Judged first without effect, so that a move does not begin before it is known.
        let ready = api.get("/readiness?target=region2").await;
        let findings = ready.body["findings"].as_array().cloned().unwrap_or_default();
        if ready.body["ready"] != false || findings.iter().all(|one| one["level"] != "fail") {
            return Err(format!("still ready: {}", ready.text));
        }
        let answer = api.post("/failover/region2", ask.clone()).await;
        if answer.body["code"] == code { Ok(answer) } else { Err(answer.text) }
    })
    .await
    .unwrap()
}

fn detail(answer: &Answer) -> &str {
    answer.body["detail"].as_str().unwrap()
}

/// SIGSTOP or SIGCONT to every process of a data server.
fn signal_server(stack: &Stack, node: &str, signal: Signal) {
    let state = stack.state();
    let server = stack.look().processes.into_iter().find(|one| one.name == node).unwrap();
    for process in processes::of_lab(&stack.directory, state.uid) {
        if process.directory == server.data_directory {
            processes::signal(process.identity, signal);
        }
    }
}

async fn exposed(api: &Api) {
    until(RECOVERY, async || {
        let status = api.status().await?;
        let idle = status["operation"].is_null();
        if status["protection"] == "exposed" && idle { Ok(()) } else { Err(status.to_string()) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_standby_that_was_left_behind_is_refused_with_its_distance() {
    let stack = shared().await;
    let api = stack.api();
    signal_server(&stack, "main.region2", Signal::STOP);
    exposed(&api).await;
    let session = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&session, "WITHOUT-THE-STANDBY").await.unwrap();
    let answer = refused_with(&api, &Ask::default(), "not-in-takeover-set").await;
    answer.refuses(409, "not-in-takeover-set");
    assert!(detail(&answer).contains("bytes behind"), "{answer:?}");
    signal_server(&stack, "main.region2", Signal::CONT);
    api.protected(RECOVERY).await.unwrap();
    api.failover("region2").await.succeeds();
}

#[tokio::test]
async fn a_target_whose_agent_is_down_is_refused() {
    let stack = shared().await;
    let api = stack.api();
    stack.kill("agent.region2");
    let answer = refused_with(&api, &Ask::default(), "target-agent-silent").await;
    answer.refuses(409, "target-agent-silent");
    assert!(detail(&answer).contains("region2"), "{answer:?}");
    stack.start_again("agent.region2");
    api.protected(RECOVERY).await.unwrap();
    api.failover("region2").await.succeeds();
}

#[tokio::test]
async fn a_target_without_room_is_refused_with_the_number() {
    let stack = shared().await;
    // A full disk by the other side of the comparison: more room is demanded than any disk has.
    let file = stack.state().stack_file;
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("disk_free_least_mb")).unwrap();
    let set = |text: &str| {
        std::fs::write(&file, text).unwrap();
        stack.kill("orchestrator.witness");
        stack.start_again("orchestrator.witness");
    };
    set(&text.replace(line, "disk_free_least_mb = 900000000"));
    let api = stack.api();
    until(RECOVERY, async || api.status().await).await.unwrap();
    let answer = refused_with(&api, &Ask::default(), "disk-full").await;
    answer.refuses(409, "disk-full");
    assert!(detail(&answer).contains("MB free, at least 900000000 MB"), "{answer:?}");
    set(&text);
    stack.api().protected(RECOVERY).await.unwrap();
    stack.api().failover("region2").await.succeeds();
}

#[tokio::test]
async fn loss_is_accepted_only_with_right_reason_and_word_that_the_old_side_is_down() {
    let stack = shared().await;
    let api = stack.api();
    signal_server(&stack, "main.region2", Signal::STOP);
    exposed(&api).await;
    let session = postgres(&stack, "main.region1").await.unwrap();
    acknowledged(&session, "LOST-WITH-CONSENT").await.unwrap();
    let names = stack.started_in("region1");
    let primary = stack.process("main.region1").unwrap();
    stack.kill_region("region1");
    signal_server(&stack, "main.region2", Signal::CONT);
    refused_with(&api, &Ask::default(), "not-in-takeover-set").await;

    let ask = |token: Token, body: &Value| Ask { token, body: body.to_string(), key: None };
    let without_reason = json!({ "accept_loss": true });
    let answer = api.post("/failover/region2", ask(Token::AcceptLoss, &without_reason)).await;
    answer.refuses(400, "bad-request");
    let reason = "region1 burnt down";
    let body = json!({ "accept_loss": true, "reason": reason, "requested_by": "a test" });
    let answer = api.post("/failover/region2", ask(Token::Operate, &body)).await;
    answer.refuses(403, "forbidden");
    let answer =
        refused_with(&api, &ask(Token::AcceptLoss, &body), "old-side-not-known-down").await;
    answer.refuses(409, "old-side-not-known-down");

    let body = json!({
        "accept_loss": true,
        "old_side_is_down": true,
        "reason": reason,
        "requested_by": "a test",
    });
    let done = until(RECOVERY, async || {
        // The thawed standby may need a moment until it answers its agent.
        let answer = api.post("/failover/region2", ask(Token::AcceptLoss, &body)).await;
        if answer.status == 409 { Err(answer.text) } else { Ok(answer) }
    })
    .await
    .unwrap();
    done.succeeds();
    let listed = api.get("/operations").await;
    let all = listed.body["operations"].as_array().unwrap();
    let found = all.iter().find(|one| one["operation_id"] == done.operation()).unwrap();
    assert_eq!(found["reason"], reason, "{found:#}");
    assert_eq!(found["requested_by"], "a test", "{found:#}");
    let text = found.to_string();
    assert!(
        text.contains("loss was accepted") && text.contains("bytes behind when region1 was last"),
        "the history does not say what loss was accepted: {found:#}"
    );

    taken_off(primary).await;
    // The old side's data may be all that is left of what was lost: it stays until it is released.
    names.iter().for_each(|name| stack.start_again(name));
    until(RECOVERY, async || {
        let status = api.status().await?.to_string();
        if status.contains("P18") { Ok(()) } else { Err(status) }
    })
    .await
    .unwrap();
    let data = |name: &str| stack.directory.join("region1/main").join(name);
    assert!(data("data/PG_VERSION").is_file());
    assert!(stack.process("main.region1").is_none(), "the old side was started");
    // Also by an orchestrator whose record was begun anew.
    stack.kill("orchestrator.witness");
    let told = adopt(&stack, "region1", &[]).unwrap_err();
    assert!(told.contains("PostgreSQL runs as primary in region2"), "{told}");
    let told = adopt(&stack, "region2", &[]).unwrap();
    assert!(told.contains("main.region1 stays held: loss was accepted"), "{told}");
    assert!(told.contains("nothing was done"), "{told}");
    let told = adopt(&stack, "region2", &["--yes"]).unwrap();
    assert!(told.contains("the old store is in"), "{told}");
    stack.start_again("orchestrator.witness");
    let api = stack.api();
    until(RECOVERY, async || {
        let status = api.status().await?.to_string();
        if status.contains("P18") { Ok(()) } else { Err(status) }
    })
    .await
    .unwrap();
    assert!(stack.process("main.region1").is_none(), "the old side was started");
    api.post("/rebuild/main.region1", Ask::default()).await.succeeds();
    api.protected(RECOVERY).await.unwrap();
    let kept: Vec<String> = std::fs::read_dir(stack.directory.join("region1/main"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("data.") && data(name).join("PG_VERSION").is_file())
        .collect();
    assert_eq!(kept.len(), 1, "the old side's data is kept beside the new: {kept:?}");
}

/// `tier0 authority adopt`, as the store's own user.
fn adopt(stack: &Stack, writer: &str, more: &[&str]) -> Result<String, String> {
    let account = Account::unprivileged().unwrap();
    let output = account
        .command(env!("CARGO_BIN_EXE_tier0"), &stack.directory)
        .args(["authority", "adopt", "--site", "witness", "--writer", writer, "--config"])
        .arg(&stack.state().stack_file)
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
