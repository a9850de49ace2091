//! A bare PostgreSQL primary with one asynchronous standby, made by the test itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use tier0_config::Secret;
use tier0_lab::ledger::PostgresTarget;

/// One server.
pub struct Server {
    /// Its data directory.
    pub data: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data.display().to_string();
        let _ = program("pg_ctl").args(["stop", "-m", "immediate", "-w", "-D", &data]).output();
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new(super::postgres_programs().join(name));
    command.env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    output
}

impl Server {
    /// A new primary.
    pub fn primary(directory: &Path) -> Server {
        let data = directory.join("primary");
        run(program("initdb")
            .args(["--locale=C.UTF-8", "--auth=trust", "--no-sync", "--username=tier0user", "-D"])
            .arg(&data));
        let server = Server { data, address: super::free_address() };
        server.start(directory);
        server
    }

    /// A standby that streams from `self`, asynchronously.
    pub fn standby(&self, directory: &Path) -> Server {
        let data = directory.join("standby");
        run(program("pg_basebackup")
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()])
            .args(["-U", "tier0user", "-X", "stream", "-R", "--no-sync", "-c", "fast", "-D"])
            .arg(&data));
        let server = Server { data, address: super::free_address() };
        server.start(directory);
        server
    }

    fn start(&self, directory: &Path) {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={} -c fsync=off \
             -c wal_retrieve_retry_interval=100ms",
            self.address.port(),
            directory.display()
        );
        let log = self.data.with_extension("log");
        run(program("pg_ctl")
            .args(["start", "-w", "-s", "-o", &options, "-l"])
            .arg(&log)
            .arg("-D")
            .arg(&self.data));
    }

    /// Kill it and everything it started, as a power cut would.
    pub fn kill(&self) {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let postmaster: i32 = text.lines().next().unwrap().parse().unwrap();
        let children = children_of(postmaster);
        for pid in [postmaster].into_iter().chain(children) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        while Path::new(&format!("/proc/{postmaster}/exe")).exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Ask for promotion, and do not wait for it.
    pub fn promote(&self) {
        run(program("pg_ctl").args(["promote", "-W", "-s", "-D"]).arg(&self.data));
    }

    /// The process that receives WAL.
    pub fn wal_receiver(&self) -> Pid {
        let output = run(program("psql")
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "-U", "tier0user"])
            .args(["-d", "postgres", "-AtXc", "SELECT pid FROM pg_stat_wal_receiver"]));
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Pid::from_raw(text.parse().unwrap_or_else(|_| panic!("no walreceiver: '{text}'"))).unwrap()
    }
}

fn children_of(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Freeze the walreceiver where it waits for data, not in the middle of reading some: what it had
/// begun to read it would still write after the thaw.
pub fn freeze(receiver: Pid) {
    let wait = format!("/proc/{}/wchan", receiver.as_raw_nonzero());
    for _ in 0..10_000 {
        let place = std::fs::read_to_string(&wait).unwrap_or_default();
        if place.contains("poll") || place.is_empty() || place == "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    kill_process(receiver, Signal::STOP).unwrap();
}

/// Both as the traffic sees them.
pub fn target(servers: &[&Server]) -> PostgresTarget {
    PostgresTarget {
        name: "main".to_owned(),
        hosts: servers.iter().map(|server| server.address).collect(),
        pools: Vec::new(),
        routers: Vec::new(),
        database: "postgres".to_owned(),
        user: "tier0user".to_owned(),
        password: Secret::new("trust"),
    }
}
