//! `protected` is taken back within seconds when somebody weakens what it rests on.

use serde_json::Value;

use crate::stack::{Api, RECOVERY, Stack, admin, shared, until};

async fn shown(api: &Api, wanted: &str, row: Option<&str>) -> Value {
    until(RECOVERY, async || {
        let status = api.status().await?;
        let reason = status["protection_reason"].as_str().unwrap_or_default().to_owned();
        let said = row.is_none_or(|row| reason.contains(row));
        if status["protection"] == wanted && said { Ok(status) } else { Err(format!("{status:#}")) }
    })
    .await
    .unwrap()
}

fn say(stack: &Stack, sql: &str) {
    admin(stack, "main.region1", sql).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_or_database_whose_commits_do_not_wait_is_named() {
    let stack = shared().await;
    let api = stack.api();
    for (weaken, mend) in [
        (
            "ALTER ROLE tier0user SET synchronous_commit = 'local'",
            "ALTER ROLE tier0user RESET synchronous_commit",
        ),
        (
            "ALTER DATABASE tier0_db SET synchronous_commit = 'off'",
            "ALTER DATABASE tier0_db RESET synchronous_commit",
        ),
    ] {
        say(&stack, weaken);
        let status = shown(&api, "at-risk", Some("S03")).await;
        let reason = status["protection_reason"].as_str().unwrap();
        assert!(reason.contains("tier0user") || reason.contains("tier0_db"), "{reason}");
        say(&stack, mend);
        shown(&api, "protected", None).await;
    }
}
