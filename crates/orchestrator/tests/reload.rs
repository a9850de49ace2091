//! A running orchestrator and its file: what it takes over on `SIGHUP`, what it refuses, and that
//! it lives through a file that cannot be used. No data server and no agent runs.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    async fn wait_for(&self, what: &str) {
        for _ in 0..500 {
            if String::from_utf8_lossy(&self.0.lock().unwrap()).contains(what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not logged: {what}\n{}", String::from_utf8_lossy(&self.0.lock().unwrap()));
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn stack_file(directory: &Path, listen: SocketAddr) -> String {
    let token = directory.join("token");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&token)
        .unwrap()
        .write_all(b"token")
        .unwrap();
    let token = token.to_str().unwrap();
    // The only orchestrator keeps its own store.
    let example = tier0_config::example();
    let (before, store) = example.split_once("[store]").unwrap();
    let (_, after) = store.split_once("\n\n").unwrap();
    format!("{before}\n{after}")
        .replace("10.0.3.10:8003", &listen.to_string())
        .replace("also_listen = [\"127.0.0.1:8003\"]", "")
        .replace("/var/lib/tier0/orchestrator", directory.join("state").to_str().unwrap())
        .replace("/etc/tier0/role.token", token)
        .replace("credential:operate-token", token)
        .replace("credential:accept-loss-token", token)
        // Nobody answers there, at once.
        .replace("10.0.1.10:8004", "127.0.0.1:1")
        .replace("10.0.2.10:8004", "127.0.0.1:2")
}

fn hang_up() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_orchestrator_takes_limits_over_and_refuses_the_rest() {
    let log = Log::default();
    let written = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).init();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stack.toml");
    let text = stack_file(directory.path(), free_address());
    std::fs::write(&path, &text).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let config = path.clone();
    let site = "witness".parse().unwrap();
    let running = tokio::spawn(async move {
        tier0_orchestrator::run(&config, &site, async { drop(stopped.await) }).await
    });
    log.wait_for("the orchestrator listens").await;
    // The handler of SIGHUP is there once the first look has been taken.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let changed = text
        .replace("# stop_ms = 2000", "stop_ms = 2500")
        .replace("# poll_interval_ms = 200", "poll_interval_ms = 100");
    std::fs::write(&path, &changed).unwrap();
    hang_up();
    log.wait_for("a changed setting is in force setting=\"limits.stop_ms\"").await;
    log.wait_for("limits.poll_interval_ms stays 200, the file has 100").await;

    // Without a signal, a file that cannot be used is found as well, and changes nothing.
    std::fs::write(&path, "[limits]\nstop_ms = 1\n").unwrap();
    log.wait_for("the settings in force stay").await;
    log.wait_for("limits.stop_ms: 1 milliseconds is outside the bounds").await;
    assert!(!running.is_finished());

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}
