//! A cluster of real etcd processes on free ports of the loopback address. They are killed, by their
//! process ids, when the last test that uses them is done with them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tier0_store::{Etcd, EtcdCredentials, EtcdSettings};

use super::skipped;

pub struct Cluster {
    directory: TempDir,
    members: Mutex<Vec<Member>>,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

struct Member {
    arguments: Vec<String>,
    pub address: String,
    child: Child,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The cluster that tests share which harm no member.
pub fn shared(test: &str) -> Option<Arc<Cluster>> {
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(Cluster::start(test, 3)?);
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}

impl Cluster {
    /// A cluster of its own; `None` where there is no etcd.
    pub fn start(test: &str, members: usize) -> Option<Cluster> {
        if let Err(error) = Command::new("etcd").arg("--version").stdout(Stdio::null()).status() {
            skipped(&format!("etcd::{test}"), &format!("etcd cannot be started: {error}"));
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(members * 2);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> =
            (0..members).map(|index| format!("m{index}={}", url(ports[index * 2 + 1]))).collect();
        let members = (0..members).map(|index| {
            let (client, peer) = (url(ports[index * 2]), url(ports[index * 2 + 1]));
            let data = directory.path().join(format!("m{index}"));
            let arguments: Vec<String> = [
                ("name", format!("m{index}")),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", peers.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                ("initial-cluster-token", format!("tier0-test-{}", ports[0])),
                ("quota-backend-bytes", (64 << 20).to_string()),
                ("logger", "zap".to_owned()),
                ("log-level", "error".to_owned()),
            ]
            .map(|(name, value)| format!("--{name}={value}"))
            .into();
            let child = spawn(&arguments);
            Member { arguments, address: client, child }
        });
        let members = Mutex::new(members.collect());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let cluster = Cluster { directory, members, runtime, client };
        cluster.wait_for_leader();
        Some(cluster)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.members.lock().unwrap().iter().map(|member| member.address.clone()).collect()
    }

    /// A store on these members.
    pub fn store_on(&self, addresses: Vec<String>, stack: &str) -> Etcd {
        let stack = stack.parse().unwrap();
        Etcd::new(EtcdSettings { endpoints: addresses, stack, credentials: None }).unwrap()
    }

    /// A store on all members, the first one first.
    pub fn store(&self, stack: &str) -> Etcd {
        self.store_on(self.addresses(), stack)
    }

    pub fn store_as(&self, stack: &str, user: &str, password: &str) -> Etcd {
        let credentials =
            Some(EtcdCredentials { user: user.to_owned(), password: password.to_owned() });
        let (endpoints, stack) = (self.addresses(), stack.parse().unwrap());
        Etcd::new(EtcdSettings { endpoints, stack, credentials }).unwrap()
    }

    pub fn kill(&self, member: usize) {
        let mut members = self.members.lock().unwrap();
        members[member].child.kill().unwrap();
        members[member].child.wait().unwrap();
    }

    pub fn start_again(&self, member: usize) {
        let mut members = self.members.lock().unwrap();
        members[member].child = spawn(&members[member].arguments);
    }

    pub fn signal(&self, member: usize, signal: Signal) {
        let id = self.members.lock().unwrap()[member].child.id();
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Which member leads, once all of them know it.
    pub fn wait_for_leader(&self) -> usize {
        let start = Instant::now();
        loop {
            let leads: Vec<Option<bool>> =
                self.addresses().iter().map(|address| self.leads(address)).collect();
            match leads.iter().position(|leads| *leads == Some(true)) {
                Some(leader) if leads.iter().all(Option::is_some) => return leader,
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "no leader: {leads:?}, see {}",
                self.directory.path().display()
            );
        }
    }

    fn leads(&self, address: &str) -> Option<bool> {
        let status = self.ask(address, "maintenance/status", &json!({})).ok()?;
        let leader = status["leader"].as_str().filter(|leader| *leader != "0")?;
        Some(leader == status["header"]["member_id"].as_str()?)
    }

    /// Ask a member what its gateway is asked.
    pub fn ask(&self, address: &str, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.client.post(format!("{address}/v3/{path}")).json(body);
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| error.to_string())?;
            let status = response.status();
            let text = response.text().await.map_err(|error| error.to_string())?;
            if !status.is_success() {
                return Err(text);
            }
            serde_json::from_str(&text).map_err(|error| error.to_string())
        })
    }

    /// The value of a key, whoever wrote it.
    pub fn get(&self, key: &str) -> Option<String> {
        let body = json!({"key": STANDARD.encode(key)});
        let answer = self.ask(&self.addresses()[0], "kv/range", &body).unwrap();
        let value = answer["kvs"][0]["value"].as_str()?;
        Some(String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
    }

    /// Change a key behind the store's back.
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) {
        let body = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)});
        self.ask(&self.addresses()[0], "kv/put", &body).unwrap();
    }

    pub fn delete(&self, key: &str) {
        let body = json!({"key": STANDARD.encode(key)});
        self.ask(&self.addresses()[0], "kv/deleterange", &body).unwrap();
    }
}

fn spawn(arguments: &[String]) -> Child {
    Command::new("etcd")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Different ports that are free now.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
