//! PostgreSQL with a synchronous standby, and Redis, in a temporary directory on free ports. Ended
//! by their process ids when dropped. Needs PostgreSQL 15 and Redis 7 on this machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};
use tokio_postgres::{Client, Config, NoTls};

const BIN: &str = "/usr/lib/postgresql/15/bin";
pub const PASSWORD: &str = "a-secret-of-this-test";

/// A server process.
pub struct Server {
    child: Child,
    /// What ends it at once. Whoever started the tests may have left SIGQUIT ignored; PostgreSQL
    /// listens to it all the same, and Redis does not.
    end: Signal,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// Stop every process of it, so that it neither answers nor ends; and let them go on.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        // The postmaster first, lest it notice, and have no new child.
        let postmaster = Pid::from_child(&self.child);
        kill_process(postmaster, signal).unwrap();
        for entry in fs::read_dir("/proc").unwrap() {
            let Ok(stat) = fs::read_to_string(entry.unwrap().path().join("stat")) else { continue };
            let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1);
            if parent == Some(&self.child.id().to_string()) {
                let child = stat.split(' ').next().unwrap().parse().unwrap();
                // It may have ended meanwhile.
                let _ = kill_process(Pid::from_raw(child).unwrap(), signal);
            }
        }
    }

    /// End it at once, without a shutdown checkpoint (PostgreSQL: immediate).
    pub fn crash(&mut self) {
        kill_process(Pid::from_child(&self.child), self.end).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // What is frozen does not end.
            self.thaw();
            let _ = kill_process(Pid::from_child(&self.child), self.end);
            let _ = self.child.wait();
        }
    }
}

/// A directory for servers.
pub struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        let directory = tempfile::tempdir().unwrap();
        own(directory.path());
        Lab { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that only its owner may read.
    pub fn secret(&self) -> PathBuf {
        let path = self.path("secret");
        fs::write(&path, PASSWORD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A primary that waits for any standby, with the database `app` of the role `app`.
    pub async fn primary(&self) -> Server {
        let data = self.path("primary");
        let password = self.path("superuser");
        fs::write(&password, PASSWORD).unwrap();
        own(&password);
        run(as_postgres("initdb")
            .args(["-A", "scram-sha-256", "-U", "postgres", "-D"])
            .arg(&data)
            .arg(format!("--pwfile={}", password.display())));
        let server = self.start("primary").await;
        let admin = connect(&server, "postgres").await;
        admin.batch_execute(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
        admin.batch_execute("CREATE DATABASE app OWNER app").await.unwrap();
        server
    }

    /// A synchronous standby of this primary.
    pub async fn standby(&self, primary: &Server) -> Server {
        let data = self.path("standby");
        run(as_postgres("pg_basebackup")
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-c", "fast", "-p"])
            .arg(primary.port.to_string())
            .arg("-D")
            .arg(&data));
        let server = self.start("standby").await;
        let admin = connect(primary, "postgres").await;
        admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        server
    }

    /// Start what is in this directory, and wait until it accepts sessions.
    async fn start(&self, name: &str) -> Server {
        self.restart(name, free_port()).await
    }

    /// Start what is in this directory on this port.
    pub async fn restart(&self, name: &str, port: u16) -> Server {
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let child = as_postgres("postgres")
            .arg("-D")
            .arg(self.path(name))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "lc_messages=C"])
            .args(["-c", &format!("port={port}")])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Server { child, end: Signal::QUIT, port };
        let limit = Instant::now() + Duration::from_secs(30);
        while config(&server, "postgres").connect(NoTls).await.is_err() {
            assert!(Instant::now() < limit, "{name} does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    pub fn promote(&self, name: &str) {
        run(as_postgres("pg_ctl").args(["promote", "-w", "-D"]).arg(self.path(name)));
    }

    pub fn redis(&self) -> Server {
        let port = free_port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD, "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Server { child, end: Signal::KILL, port }
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A session of the superuser.
pub async fn connect(server: &Server, database: &str) -> Client {
    let (client, connection) = config(server, database).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn config(server: &Server, database: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.port).user("postgres").password(PASSWORD);
    config.dbname(database);
    config
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(Path::new(BIN).join(program));
    if let Some((user, group)) = postgres_account() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn own(path: &Path) {
    if let Some((user, group)) = postgres_account() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn postgres_account() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<_> = line.expect("an account named postgres").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
