//! Two PostgreSQL servers, two Redis servers and three Sentinels, made as an operator would, and
//! tier0's roles beside them. Everything ends with the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::{must, until};

pub const SUPERUSER_PASSWORD: &str = "super-secret";
pub const CLIENT_PASSWORD: &str = "client-secret";
pub const REDIS_PASSWORD: &str = "cache-secret";

const PORT: u16 = 5_544;
const REDIS_PORT: u16 = 6_544;
const SENTINEL_PORT: u16 = 26_544;

/// Where a server's configuration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Beside its data, as `initdb` leaves it.
    Plain,
    /// In a directory of its own, as Debian's `pg_createcluster` makes it: `/etc/postgresql`, moved
    /// below the test's directory by `PG_CLUSTER_CONF_ROOT`.
    Debian,
}

pub struct Servers {
    layout: Layout,
    directory: tempfile::TempDir,
    network: u32,
    roles: Vec<(String, Child)>,
}

fn binaries() -> PathBuf {
    let packaged = PathBuf::from("/usr/lib/postgresql/15/bin");
    std::env::var_os("TIER0_POSTGRES_BIN").map_or(packaged, PathBuf::from)
}

/// The program under test: built here, since it is another crate's. By way of a test of its own and of
/// the whole workspace, since any other selection would compile the libraries once more.
fn program() -> PathBuf {
    let whole = ["test", "--quiet", "--locked", "--workspace", "--no-run", "--test", "coverage"];
    must(Command::new(env!("CARGO")).args(whole));
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("tier0")
}

impl Servers {
    pub fn make(layout: Layout) -> Servers {
        let directory = tempfile::tempdir().unwrap();
        let first = match layout {
            Layout::Plain => 211,
            Layout::Debian => 171,
        };
        let network = first + std::process::id() % 40;
        let servers = Servers { layout, directory, network, roles: Vec::new() };
        fs::copy(program(), servers.path("tier0")).unwrap();
        if rustix::process::geteuid().is_root() {
            must(
                Command::new("chown")
                    .args(["-R", "postgres:postgres"])
                    .arg(servers.directory.path()),
            );
        }
        servers.make_postgres();
        servers.make_redis();
        servers.write(
            "credentials.toml",
            &format!(
                "[postgres.main]\nuser = \"postgres\"\npassword = \"{SUPERUSER_PASSWORD}\"\n\
             database = \"shop\"\napplication_user = \"shop\"\n\
             [redis.cache]\npassword = \"{REDIS_PASSWORD}\"\n"
            ),
        );
        servers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ip(&self, place: u32) -> String {
        format!("127.{}.{place}.1", self.network)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            must(Command::new("chown").arg("postgres:postgres").arg(&path));
        }
    }

    /// A command as the servers' user.
    fn run(&self, program: impl AsRef<Path>) -> Command {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program.as_ref());
            command
        } else {
            Command::new(program.as_ref())
        };
        command.current_dir(self.directory.path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn sql(&self, region: &str, database: &str, sql: &str) -> String {
        let port = self.postgres(region).1.to_string();
        let mut command = self.run("psql");
        command.args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-p",
            &port,
            "-d",
            database,
        ]);
        must(command.arg("-h").arg(self.directory.path()).args(["-c", sql])).trim().to_owned()
    }

    pub fn postgres(&self, region: &str) -> (String, u16) {
        if region == "region1" { (self.ip(1), PORT) } else { (self.ip(2), PORT + 1) }
    }

    pub fn redis_port(&self) -> u16 {
        REDIS_PORT
    }

    fn make_postgres(&self) {
        self.write("password", SUPERUSER_PASSWORD);
        self.make_cluster("main", PORT);
        let append = |name: &str, text: &str| {
            let path = self.conf("main", name);
            let old = fs::read_to_string(&path).unwrap();
            fs::write(&path, old + text).unwrap();
        };
        append("postgresql.conf", &self.own_settings(1, PORT));
        append(
            "pg_hba.conf",
            "host replication streamer 127.0.0.0/8 scram-sha-256\n\
             host all all 127.0.0.0/8 scram-sha-256\n",
        );
        self.pg_ctl("main", "start");
        for sql in [
            "CREATE ROLE streamer REPLICATION LOGIN PASSWORD 'other-secret'",
            &format!("CREATE ROLE shop LOGIN PASSWORD '{CLIENT_PASSWORD}'"),
            "CREATE DATABASE shop OWNER shop",
        ] {
            self.sql("region1", "postgres", sql);
        }
        self.sql(
            "region1",
            "shop",
            "CREATE TABLE ledger (id bigint PRIMARY KEY); ALTER TABLE ledger OWNER TO shop; \
             CREATE TABLE old AS SELECT g, md5(g::text) FROM generate_series(1, 200000) g",
        );
        if self.layout == Layout::Debian {
            // The usual way: a cluster for the configuration, its data thrown away.
            self.make_cluster("spare", PORT + 1);
            fs::remove_dir_all(self.path("spare/data")).unwrap();
        }
        // An asynchronous standby, the way the manual makes one.
        must(
            self.run(binaries().join("pg_basebackup"))
                .env("PGPASSWORD", "other-secret")
                .args([
                    "-h",
                    &self.ip(1),
                    "-p",
                    &PORT.to_string(),
                    "-U",
                    "streamer",
                    "-R",
                    "-c",
                    "fast",
                ])
                .arg("-D")
                .arg(self.path("spare/data")),
        );
        self.configure_spare();
        self.pg_ctl("spare", "start");
    }

    /// What this machine's servers need, and something of the operator's.
    fn own_settings(&self, place: u32, port: u16) -> String {
        format!(
            "listen_addresses = '{}'\nport = {port}\nunix_socket_directories = '{}'\n\
             shared_buffers = 32MB\ndynamic_shared_memory_type = mmap\nwork_mem = 7MB\n",
            self.ip(place),
            self.directory.path().display(),
        )
    }

    /// The standby's own address and port, in its own file.
    fn configure_spare(&self) {
        let path = self.conf("spare", "postgresql.conf");
        let conf = fs::read_to_string(&path).unwrap();
        let conf = match self.layout {
            Layout::Plain => conf
                .replace(&format!("port = {PORT}"), &format!("port = {}", PORT + 1))
                .replace(&self.ip(1), &self.ip(2)),
            Layout::Debian => {
                let hba = fs::read(self.conf("main", "pg_hba.conf")).unwrap();
                fs::write(self.conf("spare", "pg_hba.conf"), hba).unwrap();
                conf + &self.own_settings(2, PORT + 1)
            }
        };
        fs::write(path, conf).unwrap();
    }

    /// A file of a cluster's configuration.
    pub fn conf(&self, name: &str, file: &str) -> PathBuf {
        match self.layout {
            Layout::Plain => self.path(&format!("{name}/data/{file}")),
            Layout::Debian => self.path(&format!("etc/15/{name}/{file}")),
        }
    }

    fn make_cluster(&self, name: &str, port: u16) {
        let data = self.path(&format!("{name}/data"));
        let initdb = ["-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"];
        match self.layout {
            Layout::Plain => {
                let mut command = self.run(binaries().join("initdb"));
                must(command.args(initdb).arg("-D").arg(&data).arg("--pwfile=password"));
            }
            Layout::Debian => {
                self.make_directory("etc");
                self.make_directory(name);
                let log = self.path(&format!("{name}.log"));
                let mut command = self.debian("pg_createcluster");
                command.args(["15", name, "--start-conf", "auto", "-p", &port.to_string(), "-d"]);
                command.arg(&data).arg("-l").arg(log).arg("-s").arg(self.directory.path());
                if rustix::process::geteuid().is_root() {
                    command.args(["-u", "postgres"]);
                }
                let password = format!("--pwfile={}", self.path("password").display());
                must(command.arg("--").args(initdb).arg(password));
            }
        }
    }

    /// One of Debian's wrappers, with its `/etc/postgresql` below the test's directory.
    fn debian(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PG_CLUSTER_CONF_ROOT", self.path("etc")).env("LC_ALL", "C");
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn pg_ctl(&self, name: &str, verb: &str) {
        let mut command = match self.layout {
            Layout::Plain => {
                let mut command = self.run(binaries().join("pg_ctl"));
                command.args(["-w", "-m", "fast", "-D"]).arg(self.path(&format!("{name}/data")));
                command.arg("-l").arg(self.path(&format!("{name}.log"))).arg(verb);
                command
            }
            Layout::Debian => {
                let mut command = self.debian("pg_ctlcluster");
                command.args(["--skip-systemctl-redirect", "15", name, verb]);
                if verb == "stop" {
                    command.args(["-m", "fast"]);
                }
                command
            }
        };
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success() || verb == "stop", "pg_ctl {verb} {name}");
    }

    fn make_redis(&self) {
        let home = self.ip(1);
        for place in [1, 2] {
            let directory = self.make_directory(&format!("cache{place}"));
            let ip = self.ip(place);
            let mut conf = format!(
                "port {REDIS_PORT}\nbind {ip}\nreplica-announce-ip {ip}\ndaemonize yes\n\
                 requirepass {REDIS_PASSWORD}\nappendonly yes\nmaxmemory 100mb\n\
                 dir {directory}\nlogfile {directory}/log\n",
            );
            if place == 2 {
                conf += &format!("masterauth {REDIS_PASSWORD}\nreplicaof {home} {REDIS_PORT}\n");
            }
            self.write(&format!("cache{place}/my.conf"), &conf);
            must(self.run("redis-server").arg(format!("{directory}/my.conf")));
        }
        for place in 1..=3 {
            let directory = self.make_directory(&format!("sentinel{place}"));
            let ip = self.ip(place);
            self.write(
                &format!("sentinel{place}/sentinel.conf"),
                &format!(
                    "port {SENTINEL_PORT}\nbind {ip}\nsentinel announce-ip {ip}\ndaemonize yes\n\
                 dir {directory}\nlogfile {directory}/log\npidfile {directory}/pid\n\
                 sentinel monitor shopcache {home} {REDIS_PORT} 2\n\
                 sentinel auth-pass shopcache {REDIS_PASSWORD}\n\
                 sentinel down-after-milliseconds shopcache 5000\n"
                ),
            );
            must(self.run("redis-sentinel").arg(format!("{directory}/sentinel.conf")));
        }
        until(Duration::from_secs(20), || {
            let known = self.sentinel(1, &["SENTINEL", "SENTINELS", "shopcache"]);
            if known.matches("runid").count() == 2 { Ok(()) } else { Err(known) }
        });
    }

    fn make_directory(&self, name: &str) -> String {
        let path = self.path(name);
        must(self.run("mkdir").arg("-p").arg(&path));
        path.display().to_string()
    }

    fn sentinel(&self, place: u32, words: &[&str]) -> String {
        let port = SENTINEL_PORT.to_string();
        must(self.run("redis-cli").args(["-h", &self.ip(place), "-p", &port]).args(words))
    }

    /// `tier0 init` for them.
    pub fn init(&self, more: &[&str]) -> Output {
        let (one, two, three) = (self.ip(1), self.ip(2), self.ip(3));
        let spare = PORT + 1;
        self.run(self.path("tier0"))
            .args(["init", "--name", "shop", "--credentials", "credentials.toml"])
            .args(["--postgres", &format!("main=region1:{one}:{PORT},region2:{two}:{spare}")])
            .args([
                "--redis",
                &format!("cache=region1:{one}:{REDIS_PORT},region2:{two}:{REDIS_PORT}"),
            ])
            .args([
                "--sentinel",
                &format!(
                    "region1:{one}:{SENTINEL_PORT},region2:{two}:{SENTINEL_PORT},\
                 witness:{three}:{SENTINEL_PORT}"
                ),
            ])
            .args(["--orchestrator", &format!("witness:{three}:8003"), "--directory"])
            .arg(self.path("stack"))
            .arg("--units")
            .arg(self.path("units"))
            .args(more)
            .output()
            .unwrap()
    }

    fn start_role(&mut self, name: &str, arguments: &[&str]) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let mut command = self.run(self.path("tier0"));
        command.args(arguments).arg("--config").arg(self.path("stack/stack.toml"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.roles.push((name.to_owned(), child));
    }

    pub fn start_roles(&mut self) {
        self.start_agents();
        self.start_role("orchestrator", &["orchestrator", "--site", "witness"]);
    }

    pub fn start_agents(&mut self) {
        self.start_role("agent1", &["agent", "--region", "region1"]);
        self.start_role("agent2", &["agent", "--region", "region2"]);
    }

    pub fn stop_agents(&mut self) {
        self.end_roles(|name| name.starts_with("agent"));
    }

    fn end_roles(&mut self, which: impl Fn(&str) -> bool) {
        let (ending, staying) =
            std::mem::take(&mut self.roles).into_iter().partition(|(name, _)| which(name));
        self.roles = staying;
        let ending: Vec<(String, Child)> = ending;
        for (_, mut child) in ending {
            // `runuser` passes the signal on to the role, and ends after it.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.run(self.path("tier0"))
            .args(arguments)
            .args(["--api", &format!("http://{}:8003", self.ip(3)), "--token-file"])
            .arg(self.path("stack/secrets/operate-token"))
            .output()
            .unwrap()
    }

    /// What `tier0 check` says, and whether it is ready.
    pub fn check(&self) -> (bool, String) {
        let output = self.ask(&["check"]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Have Debian start the clusters at boot, or leave that to the agents.
    pub fn start_conf(&self, word: &str) {
        for name in ["main", "spare"] {
            fs::write(self.conf(name, "start.conf"), format!("{word}\n")).unwrap();
        }
    }

    pub fn wait_protected(&self, region: &str, limit: Duration) {
        until(limit, || {
            let output = self.ask(&["status", "--json"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
            if status["protection"] == "protected" && status["current_region"] == region {
                return Ok(());
            }
            let log = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
            Err(format!("{said}\n{}\n{}", log("agent1.log"), log("agent2.log")))
        });
    }

    pub fn failover(&self, region: &str) {
        let output = self.ask(&["failover", region, "--reason", "test"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{errors}");
        let place = if region == "region1" { 1 } else { 2 };
        let named = self.sentinel(3, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shopcache"]);
        assert!(named.contains(&self.ip(place)), "Sentinel names {named}");
    }

    /// How many of the numbers are not there.
    pub fn missing(&self, region: &str, numbers: &[i64]) -> usize {
        let there = self.sql(region, "shop", "SELECT id FROM ledger");
        let there: std::collections::BTreeSet<i64> =
            there.lines().filter_map(|line| line.parse().ok()).collect();
        numbers.iter().filter(|number| !there.contains(number)).count()
    }

    /// By the operator's own line of `pg_hba.conf`, with a password.
    pub fn write_as_client(&self, region: &str) {
        let (address, port) = self.postgres(region);
        must(
            self.run("psql")
                .env("PGPASSWORD", CLIENT_PASSWORD)
                .args([
                    "-XqAt",
                    "-h",
                    &address,
                    "-p",
                    &port.to_string(),
                    "-U",
                    "shop",
                    "-d",
                    "shop",
                ])
                .args(["-c", "INSERT INTO ledger SELECT -count(*) - 1 FROM ledger WHERE id < 0"]),
        );
    }

    pub fn operators_lines_are_there(&self) {
        for (name, region) in [("main", "region1"), ("spare", "region2")] {
            let read = |file: &str| fs::read_to_string(self.conf(name, file)).unwrap();
            assert!(read("postgresql.conf").contains("work_mem = 7MB"));
            assert!(read("pg_hba.conf").contains("host all all 127.0.0.0/8 scram-sha-256"));
            assert_eq!(self.sql(region, "postgres", "SHOW work_mem"), "7MB");
            assert_eq!(self.sql(region, "postgres", "SHOW restart_after_crash"), "off");
            assert_eq!(self.sql(region, "postgres", "SHOW wal_log_hints"), "on");
        }
    }

    /// Of every server.
    pub fn process_numbers(&self) -> Vec<String> {
        let first = |name: &str| {
            let text = fs::read_to_string(self.path(name)).unwrap();
            text.lines().next().unwrap().to_owned()
        };
        let mut numbers =
            vec![first("main/data/postmaster.pid"), first("spare/data/postmaster.pid")];
        for place in [1, 2] {
            let info = must(self.run("redis-cli").env("REDISCLI_AUTH", REDIS_PASSWORD).args([
                "-h",
                &self.ip(place),
                "-p",
                &REDIS_PORT.to_string(),
                "INFO",
                "server",
            ]));
            numbers.extend(
                info.lines().find(|line| line.starts_with("process_id")).map(str::to_owned),
            );
        }
        numbers
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.end_roles(|_| true);
        for place in 1..=3 {
            let stop = |port: u16| {
                let _ = self
                    .run("redis-cli")
                    .env("REDISCLI_AUTH", REDIS_PASSWORD)
                    .args(["-h", &self.ip(place), "-p", &port.to_string(), "SHUTDOWN", "NOSAVE"])
                    .output();
            };
            stop(SENTINEL_PORT);
            stop(REDIS_PORT);
        }
        for name in ["main", "spare"] {
            if self.path(name).exists() {
                self.pg_ctl(name, "stop");
            }
        }
    }
}
