//! Two nodes of one datastore in a directory of their own, and what a test does with them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tier0_config::{NodeSettings, PostgresSettings, Secret};
use tier0_core::observe::ProtectionMode;
use tier0_core::order::{Fact, Order, Outcome, PromoteMember};
use tier0_core::words::{Lsn, NodeId, SyncName, SystemId, Timeline, WalPosition};
use tier0_postgres::{PostgresNode, PostgresNodeSettings};
use tokio_postgres::{Client, NoTls};

pub const REPLICATION_PASSWORD: &str = "stream:with\\odd'signs";
pub const APPLICATION_PASSWORD: &str = "app'lication-secret";
pub const LIMIT: Duration = Duration::from_secs(60);

/// Run a scenario as a user that PostgreSQL accepts. `path` is the test's own name.
pub fn scenario(path: &str, steps: impl Future<Output = ()>) {
    if rustix::process::getuid().is_root() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = directory.path().join("tests");
        // By another process: a child that another test forks just now would inherit the open file,
        // and a file that is open for writing cannot be run.
        let own = std::env::current_exe().unwrap();
        assert!(std::process::Command::new("cp").arg(own).arg(&copy).status().unwrap().success());
        let (_, name) = path.split_once("::").unwrap();
        let status = Command::new("runuser")
            .args(["-u", "postgres", "--"])
            .arg(&copy)
            .args(["--exact", name, "--nocapture"])
            .current_dir("/")
            .status()
            .unwrap();
        assert!(status.success(), "{name}: {status}");
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(steps);
}

/// One test: a name, and what it does.
#[macro_export]
macro_rules! scenario {
    ($name:ident, $steps:block) => {
        #[test]
        fn $name() {
            $crate::harness::scenario(
                concat!(module_path!(), "::", stringify!($name)),
                async $steps,
            );
        }
    };
}

pub fn binaries() -> PathBuf {
    let packaged = PathBuf::from("/usr/lib/postgresql/15/bin");
    std::env::var_os("TIER0_POSTGRES_BIN").map_or(packaged, PathBuf::from)
}

/// Two nodes. Their servers are ended when it is dropped.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    /// Last, so that the servers are gone before their files.
    _root: tempfile::TempDir,
}

pub struct Node {
    pub id: NodeId,
    pub adapter: PostgresNode,
    pub settings: PostgresNodeSettings,
}

fn free_port(ip: &str) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

impl Pair {
    pub fn new() -> Pair {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, REPLICATION_PASSWORD).unwrap();
        let mut nodes = BTreeMap::new();
        for (region, ip) in [("region1", "127.0.1.1"), ("region2", "127.0.2.1")] {
            let at = root.path().join(region).join("it's main");
            let node = NodeSettings {
                region: region.parse().unwrap(),
                address: free_port(ip),
                data_directory: at.join("data"),
                archive_directory: Some(at.join("archive")),
                log_file: at.join("log").join("postgres.log"),
                backup_stamp_file: None,
                backup_command: None,
                adopted: None,
            };
            nodes.insert(NodeId::new("main".parse().unwrap(), node.region.clone()), node);
        }
        let parameters = [
            ("shared_buffers", "16MB"),
            ("max_connections", "40"),
            ("hot_standby_feedback", "on"),
            ("checkpoint_timeout", "15min"),
            ("dynamic_shared_memory_type", "mmap"),
            ("shared_memory_type", "mmap"),
        ];
        let postgres = PostgresSettings {
            bin_directory: binaries(),
            admin_user: "tier0_admin".into(),
            replication_user: "replication_user".into(),
            replication_password_file: secret.clone().into(),
            database: "tier0_db".into(),
            application_user: "tier0user".into(),
            application_password_file: secret.into(),
            client_networks: vec!["127.0.0.0/8".to_owned()],
            parameters: parameters
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            protection: ProtectionMode::MaxAvailability,
        };
        let node = |id: &str| {
            let id: NodeId = id.parse().unwrap();
            let settings = PostgresNodeSettings::new(
                id.clone(),
                nodes.clone(),
                postgres.clone(),
                Secret::new(REPLICATION_PASSWORD),
            );
            Node { id, adapter: PostgresNode::new(settings.clone()).unwrap(), settings }
        };
        Pair { a: node("main.region1"), b: node("main.region2"), _root: root }
    }

    /// The first node runs as an exposed primary with clients let in.
    pub async fn exposed() -> Pair {
        let pair = Pair::new();
        let began = Instant::now();
        pair.a.adapter.initialise(&Secret::new(APPLICATION_PASSWORD)).await.unwrap();
        println!("{:32} {:>7.1} ms", "initialise", milliseconds(began));
        pair.a.done(Order::PostgresStart { names: None }).await;
        pair.a.done(Order::PostgresAdmit { member: None }).await;
        pair
    }

    /// The second node follows the first.
    pub async fn following() -> Pair {
        let pair = Pair::exposed().await;
        let followed = pair.b.done(follow(&pair.a)).await;
        assert!(matches!(&followed, Fact::Followed { method, .. } if method == "base-backup"));
        pair
    }

    /// The second node is in the takeover set.
    pub async fn protected() -> (Pair, PromoteMember) {
        let pair = Pair::following().await;
        let member = join(&pair.a, &pair.b, 1).await;
        (pair, member)
    }
}

/// The three steps of a join.
pub async fn join(primary: &Node, standby: &Node, number: u64) -> PromoteMember {
    let name = SyncName::new(standby.id.clone(), number);
    standby.done(Order::PostgresRename { name: name.clone() }).await;
    let began = Instant::now();
    let begin = Order::PostgresJoinBegin { name: name.clone(), join_limit_ms: 20_000 };
    let waiting = primary.done(begin).await;
    let Fact::Waiting { lsn: waited } = waiting else { panic!("{waiting:?}") };
    let proven = primary.done(Order::PostgresJoinProve { name: name.clone() }).await;
    println!("{:32} {:>7.1} ms", "clients wait at most", milliseconds(began));
    let Fact::Proven { system, timeline, lsn } = proven else { panic!("{proven:?}") };
    assert!(lsn >= waited);
    PromoteMember { name, system, timeline, floor: lsn }
}

pub fn follow(upstream: &Node) -> Order {
    Order::PostgresFollow { upstream: upstream.id.clone(), rebuild: false, keep_old: false }
}

pub fn promote(member: &PromoteMember, stopped_at: Option<WalPosition>) -> Order {
    Order::PostgresPromote {
        member: Some(member.clone()),
        stopped_at,
        accept_loss: false,
        names: None,
    }
}

pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

impl Node {
    pub fn address(&self) -> SocketAddr {
        self.own().address
    }

    pub fn own(&self) -> &NodeSettings {
        &self.settings.nodes[&self.id]
    }

    pub fn data(&self) -> &Path {
        &self.own().data_directory
    }

    pub fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.data().display()))
    }

    /// A second adapter for the same node, as after a restart of the agent.
    pub fn agent_restarted(&self) -> PostgresNode {
        PostgresNode::new(self.settings.clone()).unwrap()
    }

    pub async fn order(&self, order: Order, limit: Duration) -> Outcome {
        let began = Instant::now();
        let progress = |sentence: String| println!("    {sentence}");
        let outcome = self.adapter.perform(&order, limit, &progress).await;
        let text = format!("{order:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default();
        println!("{:32} {:>7.1} ms  {} {outcome}", name, milliseconds(began), self.id);
        outcome
    }

    pub async fn done(&self, order: Order) -> Fact {
        match self.order(order.clone(), LIMIT).await {
            Outcome::Done { fact } => fact,
            other => panic!("{order:?}: {other}\n{}", self.log()),
        }
    }

    /// The code of the refusal. A server that was killed a moment ago may end while it is asked:
    /// that is unknown, and is asked again.
    pub async fn refused(&self, order: Order) -> String {
        let began = Instant::now();
        loop {
            match self.order(order.clone(), LIMIT).await {
                Outcome::Refused { refusal } => return refusal.code,
                Outcome::Unknown { .. } if began.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => panic!("{order:?}: {other}"),
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.own().log_file).unwrap_or_default()
    }

    async fn connect(config: tokio_postgres::Config) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A session of the application.
    pub async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.address().ip().to_string())
            .port(self.address().port())
            .user("tier0user")
            .password(APPLICATION_PASSWORD)
            .dbname("tier0_db");
        Self::connect(config).await
    }

    /// A session of the admin.
    pub async fn admin(&self) -> Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.data().parent().unwrap().join("socket"))
            .port(self.address().port())
            .user("tier0_admin")
            .dbname("tier0_db");
        Self::connect(config).await.unwrap()
    }

    pub async fn admin_value(&self, sql: &str) -> String {
        let admin = self.admin().await;
        let messages = admin.simple_query(sql).await.unwrap();
        messages
            .iter()
            .find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .unwrap_or_default()
    }

    pub async fn rows(&self) -> i64 {
        self.admin_value("SELECT count(*) FROM device_telemetry").await.parse().unwrap()
    }

    pub fn postmaster(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.parse().ok()?)?;
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()?;
        (cwd == self.data().canonicalize().ok()?).then_some(pid)
    }

    pub fn kill_postmaster(&self) {
        kill_process(self.postmaster().unwrap(), Signal::KILL).unwrap();
    }

    /// The process of a session of this kind, by its `backend_type`.
    pub async fn process(&self, backend_type: &str) -> Pid {
        let sql = format!(
            "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = '{backend_type}'"
        );
        Pid::from_raw(self.admin_value(&sql).await.parse().unwrap()).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            // An immediate stop ends the children too, also frozen ones after SIGKILL.
            let _ = kill_process(pid, Signal::CONT);
            let _ = kill_process(pid, Signal::QUIT);
            for _ in 0..200 {
                if self.postmaster().is_none() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Insert one row and wait for its acknowledgement.
pub async fn write(client: &Client, number: i64) -> Result<u64, tokio_postgres::Error> {
    client
        .execute(
            "INSERT INTO device_telemetry (device_id, device_type, site_id, timestamp_utc) \
             VALUES ($1::bigint::text, 'sensor', 's', now())",
            &[&number],
        )
        .await
}

pub fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

pub fn system(text: &str) -> SystemId {
    SystemId(text.to_owned())
}

pub fn timeline(number: u32) -> Timeline {
    Timeline(number)
}
