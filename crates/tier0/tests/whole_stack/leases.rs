//! Who may serve when nobody can be asked: a healthy writer goes on without the control plane, and
//! one that neither the orchestrator nor the other region vouches for is held, sessions and all.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tier0_lab::ledger::WritePath;
use tier0_lab::processes::{self, Identity};

use crate::stack::{RECOVERY, Stack, postgres, redis, shared, until};

/// Several leases.
const LONG: Duration = Duration::from_secs(4);

fn freeze(stack: &Stack, names: &[&str]) -> Vec<Identity> {
    let found: Vec<Identity> = names.iter().map(|name| stack.process(name).unwrap()).collect();
    found.iter().for_each(|process| processes::signal(*process, Signal::STOP));
    found
}

/// Whether a process of this id is stopped.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_writer_goes_on_without_an_orchestrator() {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    let frozen = freeze(&stack, &["orchestrator.witness"]);
    let server = stack.process("main.region1").unwrap();
    let began = Instant::now();
    while began.elapsed() < LONG {
        assert!(!is_stopped(server.pid), "a healthy writer was held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.goes_on().await;
    crate::stack::thaw(&frozen);
    stack.api().protected(RECOVERY).await.unwrap();
    run.lost_nothing(&WritePath::ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_nobody_vouches_for_is_held_and_goes_on_where_it_was() {
    let mut stack = shared().await;
    let run = stack.traffic().await;
    let session = postgres(&stack, "main.region1").await.unwrap();
    let mut cache = redis(&stack, "cache.region1").await.unwrap();
    let frozen = freeze(&stack, &["orchestrator.witness", "agent.region2"]);
    for name in ["main.region1", "cache.region1"] {
        let server = stack.process(name).unwrap();
        until(RECOVERY, async || match is_stopped(server.pid) {
            true => Ok(()),
            false => Err(format!("{name} is not held")),
        })
        .await
        .unwrap();
    }
    // Sessions that were open before: no byte comes back, of a write or of a read.
    let read = tokio::spawn(async move { session.query_one("SELECT 1", &[]).await });
    let written = tokio::spawn(async move {
        ::redis::cmd("SET").arg(&["held", "yes"]).query_async::<String>(&mut cache).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!read.is_finished(), "a held primary answered a read");
    assert!(!written.is_finished(), "a held master acknowledged a write");
    crate::stack::thaw(&frozen);
    // The same sessions are answered, and nobody was cut.
    read.await.unwrap().unwrap();
    written.await.unwrap().unwrap();
    stack.api().protected(RECOVERY).await.unwrap();
    run.goes_on().await;
    run.lost_nothing(&WritePath::ALL).await;
}
