//! Two real Redis servers and three real Sentinels on loopback, in a temporary directory, on ports
//! that are free at the moment. Everything is ended by its own pid when the value is dropped.
#![allow(dead_code, clippy::unwrap_used)]

mod address;
pub mod commanded;
pub mod writers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use address::free_address;
use rustix::process::{Pid, Signal, kill_process};
use tier0_config::{NodeSettings, RedisMode, RedisSettings, Secret, SentinelSettings};
use tier0_core::observe::{ProcessState, RedisView};
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::words::NodeId;
use tier0_redis::{ProbeDeadlines, RedisNode, RedisNodeSettings, SentinelConf, sentinel_conf};

pub const MASTER_NAME: &str = "tier0master";
/// Plain: Sentinel stores `auth-pass` without quotes and could not read another one back.
const PASSWORD: &str = "tier0redis-Aa1";

pub struct SentinelProcess {
    pub address: SocketAddr,
    directory: PathBuf,
    child: Option<Child>,
}

pub struct Lab {
    pub nodes: Vec<Arc<RedisNode>>,
    pub settings: Vec<RedisNodeSettings>,
    pub sentinels: Vec<SentinelProcess>,
    directory: tempfile::TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for sentinel in &mut self.sentinels {
            sentinel.stop();
        }
        for at in 0..self.settings.len() {
            self.kill(at);
        }
        if std::thread::panicking() {
            for path in self.logs() {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                eprintln!("--- {}", path.display());
                for line in &lines[lines.len().saturating_sub(25)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}

impl Lab {
    /// Settings and directories; nothing runs yet.
    pub fn new(sentinels: usize, mode: RedisMode) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let sentinels: Vec<_> = (0..sentinels)
            .map(|n| SentinelProcess {
                address: free_address(),
                directory: directory.path().join(format!("sentinel{n}")),
                child: None,
            })
            .collect();
        let parameters: BTreeMap<String, Vec<String>> = [
            ("save", vec!["900 1", "300 10", "60 10000"]),
            ("appendonly", vec!["yes"]),
            ("appendfilename", vec!["\"appendonly.aof\""]),
            ("appendfsync", vec!["everysec"]),
            ("maxmemory", vec!["2gb"]),
            ("maxmemory-policy", vec!["allkeys-lru"]),
            ("replica-read-only", vec!["yes"]),
            ("protected-mode", vec!["yes"]),
        ]
        .into_iter()
        .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect()))
        .collect();
        let redis = RedisSettings {
            server_binary: "/usr/bin/redis-server".into(),
            password_file: PathBuf::from("/nonexistent").into(),
            master_name: MASTER_NAME.into(),
            down_after_ms: 5_000,
            mode,
            sentinels: sentinels
                .iter()
                .enumerate()
                .map(|(n, one)| SentinelSettings {
                    site: format!("site{n}").parse().unwrap(),
                    address: one.address,
                })
                .collect(),
            parameters,
        };
        let nodes: BTreeMap<NodeId, NodeSettings> = ["region1", "region2"]
            .into_iter()
            .map(|region| {
                let id: NodeId = format!("cache.{region}").parse().unwrap();
                let settings = NodeSettings {
                    region: region.parse().unwrap(),
                    address: free_address(),
                    data_directory: directory.path().join(region),
                    archive_directory: None,
                    log_file: directory.path().join(format!("log/{region}.log")),
                    backup_stamp_file: None,
                    backup_command: None,
                    adopted: None,
                };
                (id, settings)
            })
            .collect();
        let settings: Vec<_> = nodes
            .keys()
            .map(|id| RedisNodeSettings {
                id: id.clone(),
                nodes: nodes.clone(),
                redis: redis.clone(),
                password: Secret::new(PASSWORD),
                deadlines: ProbeDeadlines::default(),
            })
            .collect();
        let nodes =
            settings.iter().map(|one| Arc::new(RedisNode::new(one.clone()).unwrap())).collect();
        Lab { nodes, settings, sentinels, directory }
    }

    /// Master in region 1, replica in region 2, Sentinels that know all of it.
    pub async fn running(sentinels: usize, mode: RedisMode) -> Lab {
        let mut lab = Lab::new(sentinels, mode);
        lab.done(0, Order::RedisStart { first: true }).await;
        lab.done(1, lab.follow(0, 0)).await;
        for at in 0..sentinels {
            lab.start_sentinel(at);
        }
        if sentinels > 0 {
            lab.settled().await;
        }
        lab
    }

    pub fn address(&self, at: usize) -> SocketAddr {
        let settings = &self.settings[at];
        settings.nodes[&settings.id].address
    }

    pub fn data_directory(&self, at: usize) -> &Path {
        let settings = &self.settings[at];
        &settings.nodes[&settings.id].data_directory
    }

    pub fn id(&self, at: usize) -> &NodeId {
        &self.settings[at].id
    }

    pub fn follow(&self, upstream: usize, min_replicas_to_write: u64) -> Order {
        let upstream = self.id(upstream).clone();
        Order::RedisFollow { upstream, min_replicas_to_write, rebuild: false }
    }

    pub async fn order(&self, at: usize, order: Order) -> Outcome {
        self.nodes[at].perform(&order, Duration::from_secs(20), &|_| {}).await
    }

    pub async fn done(&self, at: usize, order: Order) -> Fact {
        let text = format!("{order:?}");
        match self.order(at, order).await {
            Outcome::Done { fact } => fact,
            other => panic!("{text} on {}: {other}", self.id(at)),
        }
    }

    pub async fn refused(&self, at: usize, order: Order) -> String {
        let text = format!("{order:?}");
        match self.order(at, order).await {
            Outcome::Refused { refusal } => refusal.code,
            other => panic!("{text} on {} was not refused: {other}", self.id(at)),
        }
    }

    pub async fn view(&self, at: usize) -> RedisView {
        self.nodes[at].observe().await
    }

    /// What a node says of itself as soon as it says something.
    pub async fn running_view(&self, at: usize) -> RedisView {
        loop {
            let view = self.view(at).await;
            if view.process == ProcessState::Running {
                return view;
            }
            println!("{}: {:?} {:?}", self.id(at), view.process, view.error);
        }
    }

    pub async fn until(&self, what: &str, limit: Duration, mut so: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !so().await {
            assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{what}: {:?}", begun.elapsed());
    }

    /// A Sentinel's answer to a question, for checks that must not use the adapter.
    pub async fn ask(
        &self,
        address: SocketAddr,
        words: &[&str],
    ) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://{address}"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await
    }

    pub async fn ask_node(&self, at: usize, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = connect(self.address(at)).await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await
    }

    /// Writes a key on the first server and waits until the second has it. A replica that just
    /// finished its full sync is sent nothing until its master has heard from it again.
    pub async fn write_that_arrives(&self, key: &str) {
        self.ask_node(0, &["SET", key, "1"]).await.unwrap();
        self.until("the replica has it", Duration::from_secs(10), async || {
            self.ask_node(1, &["EXISTS", key]).await.is_ok_and(|said| said == redis::Value::Int(1))
        })
        .await;
    }

    pub async fn sentinel_fields(&self, at: usize) -> BTreeMap<String, String> {
        let said = self.ask(self.sentinels[at].address, &["SENTINEL", "MASTER", MASTER_NAME]).await;
        said.ok().and_then(|value| redis::from_redis_value(value).ok()).unwrap_or_default()
    }

    /// Every Sentinel that runs names this node, with one epoch, all peers and one replica.
    pub async fn agreed_on(&self, at: usize) -> bool {
        let mut epochs = std::collections::BTreeSet::new();
        for sentinel in 0..self.sentinels.len() {
            if self.sentinels[sentinel].child.is_none() {
                continue;
            }
            let fields = self.sentinel_fields(sentinel).await;
            let peers = (self.sentinels.len() - 1).to_string();
            let good = fields.get("port") == Some(&self.address(at).port().to_string())
                && fields.get("num-other-sentinels") == Some(&peers)
                && fields.get("num-slaves").map(String::as_str) == Some("1");
            if !good {
                return false;
            }
            epochs.insert(fields.get("config-epoch").cloned());
        }
        epochs.len() == 1
    }

    pub async fn settled(&self) {
        self.until("Sentinels know everything", Duration::from_secs(20), async || {
            self.agreed_on(0).await
        })
        .await;
    }

    pub fn start_sentinel(&mut self, at: usize) {
        let master = self.address(0);
        let one = &mut self.sentinels[at];
        let conf = one.directory.join("sentinel.conf");
        if !conf.exists() {
            std::fs::create_dir_all(&one.directory).unwrap();
            let text = sentinel_conf(&SentinelConf {
                address: one.address,
                directory: &one.directory,
                log_file: &one.directory.join("log"),
                pid_file: &one.directory.join("pid"),
                master_name: MASTER_NAME,
                master,
                password: &Secret::new(PASSWORD),
                quorum: 2,
                down_after_ms: 5_000,
                failover_timeout_ms: 10_000,
            });
            std::fs::write(&conf, text).unwrap();
        }
        one.child = Some(
            Command::new("redis-sentinel")
                .arg(&conf)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
    }

    /// The server in the node's directory, whether it has written its pid file yet or not.
    pub fn pid(&self, at: usize) -> Option<Pid> {
        let directory = std::fs::canonicalize(self.data_directory(at)).ok()?;
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter(|entry| {
                std::fs::read_link(entry.path().join("cwd")).ok() == Some(directory.clone())
            })
            .filter(|entry| {
                std::fs::read_to_string(entry.path().join("cmdline"))
                    .is_ok_and(|title| title.contains("redis-server"))
            })
            .find_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
    }

    pub fn signal(&self, at: usize, signal: Signal) {
        if let Some(pid) = self.pid(at) {
            kill_process(pid, signal).unwrap();
        }
    }

    /// kill -9, and wait until it is gone.
    pub fn kill(&self, at: usize) {
        self.signal(at, Signal::KILL);
        let begun = Instant::now();
        while self.pid(at).is_some() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn logs(&self) -> Vec<PathBuf> {
        let nodes = self.settings.iter().map(|one| one.nodes[&one.id].log_file.clone());
        nodes.chain(self.sentinels.iter().map(|one| one.directory.join("log"))).collect()
    }

    pub fn diverged(&self, at: usize) -> Vec<PathBuf> {
        let name = self.data_directory(at).file_name().unwrap().to_string_lossy().into_owned();
        std::fs::read_dir(self.directory.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(&format!("{name}.diverged-")))
            .collect()
    }

    pub fn assert_process(&self, view: &RedisView, state: ProcessState) {
        assert_eq!(view.process, state, "{:?}", view.error);
    }
}

impl SentinelProcess {
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub async fn connect(address: SocketAddr) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    use redis::IntoConnectionInfo;
    let info = redis::ConnectionAddr::Tcp(address.ip().to_string(), address.port())
        .into_connection_info()?
        .set_redis_settings(redis::RedisConnectionInfo::default().set_password(PASSWORD));
    let config = redis::AsyncConnectionConfig::new()
        .set_response_timeout(Some(Duration::from_secs(5)))
        .set_connection_timeout(Some(Duration::from_secs(1)));
    redis::Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}
