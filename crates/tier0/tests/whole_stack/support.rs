//! What is handed to somebody who helps: the lines of all roles side by side, and a bundle in which
//! no secret is.

use std::process::Command;

use crate::stack::{Ask, RECOVERY, shared};

const CANARIES: [&str; 2] = ["canary-in-a-reason-7531", "canary-in-a-comment-8642"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_side_by_side_and_a_bundle_holds_no_secret() {
    let stack = shared().await;
    let api = stack.api();
    let reason = format!("log in with password={} and look", CANARIES[0]);
    let body = serde_json::json!({ "reason": reason }).to_string();
    api.post("/failover/region2", Ask { body, ..Ask::default() }).await.succeeds();
    api.protected(RECOVERY).await.unwrap();

    // It ends by itself, since the operation is over.
    let lines = stack.run("tier0 logs --follow last", "region2");
    for wanted in [
        "orchestrator.witness INFO  operation begins",
        "agent.region1        INFO  begins",
        "step=stop",
        "agent.region2        INFO  begins",
        "step=promote",
        "orchestrator.witness INFO  operation ends",
    ] {
        assert!(lines.contains(wanted), "{wanted:?} is not in\n{lines}");
    }
    let times: Vec<&str> = lines.lines().map(|line| &line[..12]).collect();
    assert!(times.is_sorted() || times.iter().any(|time| *time < "00:01"), "{lines}");
    assert!(!stack.run("tier0 logs", "region2").is_empty());

    let file = stack.state().stack_file;
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n# password = \"{}\"\n", CANARIES[1])).unwrap();
    let directory = stack.directory.join("bundle");
    let script = format!(
        "mkdir {0} && tier0 support-bundle --config {1} --output {0}/it.tar.gz && \
         tar -C {0} -xzf {0}/it.tar.gz && stat -c %a {0}/it.tar.gz",
        directory.display(),
        file.display()
    );
    let said = stack.run(&script, "region2");
    std::fs::write(&file, &text).unwrap();
    assert!(said.ends_with("600\n"), "{said}");

    let mut secrets: Vec<String> = CANARIES.map(str::to_owned).to_vec();
    let settings = stack.state().stack().unwrap();
    let mut sources = vec![settings.stack.role_token_file.clone()];
    for one in &settings.orchestrators {
        sources.extend([one.operate_token_file.clone(), one.accept_loss_token_file.clone()]);
    }
    for datastore in &settings.datastores {
        if let Some(postgres) = &datastore.postgres {
            sources.push(postgres.replication_password_file.clone());
            sources.push(postgres.application_password_file.clone());
        }
        sources.extend(datastore.redis.iter().map(|redis| redis.password_file.clone()));
    }
    secrets.extend(sources.iter().map(|source| source.read().unwrap().expose().to_owned()));
    assert!(secrets.len() >= 8, "{}", secrets.len());
    let mut found = String::new();
    for entry in std::fs::read_dir(directory.join("tier0-support")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, secret) in secrets.iter().enumerate() {
            assert!(!text.contains(secret.as_str()), "secret {number} is in {}", path.display());
        }
        found.push_str(&format!("== {}\n{text}", path.file_name().unwrap().display()));
    }
    // What was planted was there to be found, and what helps is in it.
    let raw = api.get("/operations?limit=200").await;
    assert!(raw.text.contains(CANARIES[0]), "the canary was not planted");
    for wanted in [
        "log in with password=[redacted] and look",
        "# password = \"[redacted]\"",
        "== status.json",
        "== readiness.json",
        "== metrics.txt",
        "== logs.txt",
        "\"point_of_no_return_ms\"",
        "tier0_epoch",
        "step=promote",
    ] {
        assert!(found.contains(wanted), "{wanted:?} is not in the bundle");
    }
    let packed = Command::new("tar").arg("-tzf").arg(directory.join("it.tar.gz")).output().unwrap();
    println!("{}", String::from_utf8_lossy(&packed.stdout));
    std::fs::remove_dir_all(directory).unwrap();
}
