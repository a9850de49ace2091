//! What nobody would send, to both APIs: no answer is a server's error, and afterwards the stack is well.
//! The generator comes from PyPI; with `TIER0_LONG` it sends twenty times as much.

use std::path::Path;
use std::process::Command;

use crate::stack::{RECOVERY, Stack, long, root};

/// How the script says that there is no generator.
const NOT_INSTALLED: i32 = 3;

enum Fuzzed {
    Yes,
    NoGenerator,
}

fn fuzz(url: &str, token: Option<&Path>) -> Fuzzed {
    let mut command = Command::new(root().join("scripts/fuzz-api"));
    command.env("EXAMPLES", if long() { "100" } else { "5" });
    let output = command.arg(url).args(token).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    if output.status.code() == Some(NOT_INSTALLED) {
        tier0_lab::skipped::skipped("no_request_makes_an_api_fail", "schemathesis is not there");
        return Fuzzed::NoGenerator;
    }
    assert!(output.status.success(), "{url}: {said}");
    Fuzzed::Yes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_an_api_fail() {
    // Its own: what is asked may be carried out.
    let stack = Stack::up();
    let state = stack.state();
    let backend = state.stack().unwrap().telemetry[0].listen;
    let operator = Some(state.operate_token_file.as_path());
    let mut whom = vec![(format!("http://{backend}"), None), (state.api.clone(), operator)];
    if long() {
        // And somebody who may only look.
        whom.push((state.api.clone(), None));
    }
    for (url, token) in whom {
        match tokio::task::block_in_place(|| fuzz(&url, token)) {
            Fuzzed::Yes => {}
            Fuzzed::NoGenerator => return,
        }
    }
    stack.api().protected(RECOVERY).await.unwrap();
}
