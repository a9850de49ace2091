//! Two PostgreSQL servers, a route of any kind and its adapter, in a directory of their own.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tier0_config::{ProxyProtocol, RouteKind, RouteReads, Secret};
use tier0_core::observe::ProcessState;
use tier0_core::order::{Fact, Order, Outcome};
use tier0_core::route::{RouteOrder, RouteView};
use tier0_core::words::{Epoch, Region};
use tier0_route::pointer::plain_text;
use tier0_route::{Client as Served, Pointed, Route, RouteSettings, pointer_text};
use tier0_router::Way;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

#[path = "../../../redis/tests/harness/address.rs"]
mod address;
pub use address::free_address;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);
const DATABASE: &str = "postgres";
const USER: &str = "tier0user";

/// Run a scenario as a user that PostgreSQL accepts. `path` is the test's own name.
pub fn scenario(path: &str, steps: impl Future<Output = ()>) {
    if rustix::process::getuid().is_root() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = directory.path().join("tests");
        // By another process: a child that another test forks just now would inherit the open file,
        // and a file that is open for writing cannot be run.
        let own = std::env::current_exe().unwrap();
        assert!(Command::new("cp").arg(own).arg(&copy).status().unwrap().success());
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

fn binaries() -> PathBuf {
    let packaged = PathBuf::from("/usr/lib/postgresql/15/bin");
    std::env::var_os("TIER0_POSTGRES_BIN").map_or(packaged, PathBuf::from)
}

/// A process that ends with the test, by this signal: QUIT is PostgreSQL's immediate stop, which takes
/// its children along.
struct Running(Child, Signal);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process(pid, self.1);
        }
        for _ in 0..200 {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Rig {
    pub adapter: Arc<Route>,
    pub settings: RouteSettings,
    pool: Option<Running>,
    router: Option<tokio::task::JoinHandle<()>>,
    servers: Vec<Running>,
    root: tempfile::TempDir,
}

pub fn region(number: u8) -> Region {
    format!("region{number}").parse().unwrap()
}

impl Rig {
    /// Everything runs, and a PgBouncer points at the first region by epoch 1.
    pub async fn new() -> Rig {
        Rig::with(RouteKind::Pgbouncer).await
    }

    /// Everything runs, and a route of this kind points at the first region by epoch 1.
    pub async fn with(kind: RouteKind) -> Rig {
        let root = tempfile::tempdir().unwrap();
        let first = root.path().join("region1");
        let made = Command::new(binaries().join("initdb"))
            .args(["--auth=trust", "--no-sync", "--username", USER, "--pgdata"])
            .arg(&first)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let second = root.path().join("region2");
        let copied = Command::new("cp").arg("-a").arg(&first).arg(&second).status().unwrap();
        assert!(copied.success());
        let addresses = [free_address(), free_address()];
        let servers = [&first, &second]
            .into_iter()
            .zip(addresses)
            .map(|(data, address)| Running(postgres(data, address, root.path()), Signal::QUIT))
            .collect();
        let nodes = [(region(1), addresses[0]), (region(2), addresses[1])].into();
        let route = tier0_config::RouteSettings {
            name: "pool".parse().unwrap(),
            region: region(1),
            kind,
            datastore: "main".parse().unwrap(),
            address: free_address(),
            read_address: (kind == RouteKind::Proxy).then(free_address),
            socket_directory: root.path().to_owned(),
            admin_user: "pgbouncer".to_owned(),
            reads: RouteReads::Bounded,
            pointer_file: root.path().join("databases.ini"),
            proxy_protocol: ProxyProtocol::Off,
            fronts: BTreeMap::new(),
        };
        let pointed = Pointed { epoch: Epoch::FIRST, to: region(1) };
        let text = match kind {
            RouteKind::Pgbouncer => pointer_text(&pointed, DATABASE, addresses[0]),
            RouteKind::Haproxy | RouteKind::Proxy => plain_text(&pointed, addresses[0]),
        };
        std::fs::write(&route.pointer_file, text).unwrap();
        let client = Served::Postgres {
            database: DATABASE.to_owned(),
            user: USER.to_owned(),
            password: Secret::new("not asked for"),
        };
        let settings = RouteSettings { route, nodes, client };
        let adapter = Arc::new(Route::new(settings.clone()));
        let mut rig = Rig { adapter, settings, pool: None, router: None, servers, root };
        for address in addresses {
            rig.connect_to(address).await;
        }
        rig.start_route();
        rig.running(1, Epoch::FIRST).await;
        rig.client().await;
        rig
    }

    /// Start what the route is; again after [`Rig::kill_route`].
    pub fn start_route(&mut self) {
        match self.settings.route.kind {
            RouteKind::Pgbouncer => self.start_pool(),
            RouteKind::Haproxy => self.start_haproxy(),
            RouteKind::Proxy => {
                let RouteSettings { route, nodes, .. } = self.settings.clone();
                let ways = [Way { route, nodes }];
                self.router = Some(tokio::spawn(async move {
                    // The one before may not have let go of the port yet.
                    while let Err(error) =
                        tier0_router::serve(&ways, 1_000, std::future::pending()).await
                    {
                        println!("the router does not start: {error:#}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }));
            }
        }
    }

    fn start_pool(&mut self) {
        let route = &self.settings.route;
        let at = |name: &str| self.root.path().join(name);
        std::fs::write(at("users.txt"), format!("\"{USER}\" \"\"\n")).unwrap();
        let text = format!(
            "[databases]\n%include {}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir = {}\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             max_client_conn = 6000\ndefault_pool_size = 20\nserver_login_retry = 0.01\n",
            route.pointer_file.display(),
            route.address.port(),
            self.root.path().display(),
            at("users.txt").display(),
        );
        std::fs::write(at("pgbouncer.ini"), text).unwrap();
        let log = std::fs::File::create(at("pgbouncer.log")).unwrap();
        let mut command = Command::new("pgbouncer");
        // Debian has it where only root looks.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).arg(at("pgbouncer.ini")).stdout(Stdio::null()).stderr(log);
        self.pool = Some(Running(
            command.spawn().expect("pgbouncer: scripts/setup installs it"),
            Signal::QUIT,
        ));
    }

    /// As docs/routes.md has it.
    fn start_haproxy(&mut self) {
        let route = &self.settings.route;
        let at = |name: &str| self.root.path().join(name);
        let text = format!(
            "global\n  stats socket {} level admin\n\
             defaults\n  mode tcp\n  retries 0\n  timeout connect 500ms\n  timeout client 1h\n  \
             timeout server 1h\n\
             listen {}\n  bind {}\n  server writer 0.0.0.0:1 disabled\n",
            tier0_route::control::socket(route).display(),
            route.name,
            route.address,
        );
        std::fs::write(at("haproxy.cfg"), text).unwrap();
        let log = std::fs::File::create(at("pgbouncer.log")).unwrap();
        let mut command = Command::new("haproxy");
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).arg("-db").arg("-f").arg(at("haproxy.cfg"));
        command.stdout(Stdio::null()).stderr(log);
        self.pool = Some(Running(
            command.spawn().expect("haproxy: scripts/setup installs it"),
            Signal::TERM,
        ));
    }

    /// It runs again, and its agent has said where the writer is. Only a HAProxy has to be told: it
    /// keeps nothing.
    pub async fn running(&self, to: u8, epoch: Epoch) {
        self.seen("back", |view| view.process == ProcessState::Running).await;
        if self.settings.route.kind == RouteKind::Haproxy {
            self.adapter.keep_pointed(&region(to), epoch).await;
        }
    }

    pub fn kill_route(&mut self) {
        self.pool = None;
        if let Some(router) = self.router.take() {
            router.abort();
        }
    }

    /// Send a signal to the server of a region, as long as none has been killed.
    pub fn signal_server(&self, number: usize, signal: Signal) {
        let pid = Pid::from_raw(self.servers[number - 1].0.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The server of the first region ends.
    pub fn kill_first_server(&mut self) {
        drop(self.servers.remove(0));
    }

    /// A second adapter for the same route, as after a restart of the agent.
    pub fn agent_restarted(&self) -> Arc<Route> {
        Arc::new(Route::new(self.settings.clone()))
    }

    pub async fn order(&self, order: RouteOrder) -> Outcome {
        let began = Instant::now();
        let outcome = self.adapter.perform(&Order::Route { order: order.clone() }, LIMIT).await;
        println!("{:>7.1} ms  {order:?}: {outcome}", began.elapsed().as_secs_f64() * 1e3);
        outcome
    }

    pub async fn done(&self, order: RouteOrder) -> Fact {
        match self.order(order.clone()).await {
            Outcome::Done { fact } => fact,
            other => panic!("{order:?}: {other}\n{}", self.log()),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("pgbouncer.log")).unwrap_or_default()
    }

    /// Look until it is as it should be.
    pub async fn seen(&self, what: &str, wanted: impl Fn(&RouteView) -> bool) -> RouteView {
        let deadline = Instant::now() + LIMIT;
        loop {
            let view = self.adapter.observe().await;
            if wanted(&view) {
                return view;
            }
            assert!(Instant::now() < deadline, "{what}: {view:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn connect_to(&self, address: SocketAddr) -> Client {
        let deadline = Instant::now() + LIMIT;
        loop {
            match try_connect(address).await {
                Ok(client) => return client,
                Err(error) => {
                    assert!(Instant::now() < deadline, "{address}: {error}\n{}", self.log())
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client of the route that comes once.
    pub async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        try_connect(self.settings.route.address).await
    }

    /// A client of the route.
    pub async fn client(&self) -> Client {
        self.connect_to(self.settings.route.address).await
    }

    /// A client of the port for reads.
    pub async fn reader(&self) -> Client {
        self.connect_to(self.settings.route.read_address.unwrap()).await
    }

    /// Which region's server a statement of this client comes back from.
    pub async fn answers(&self, client: &Client) -> Region {
        let value = value(client, "SELECT inet_server_port()").await.unwrap();
        let port: u16 = value.parse().unwrap();
        let mut nodes = self.settings.nodes.iter();
        nodes.find(|(_, address)| address.port() == port).unwrap().0.clone()
    }
}

async fn try_connect(address: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user(USER).dbname(DATABASE);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn postgres(data: &Path, address: SocketAddr, sockets: &Path) -> Child {
    let log = std::fs::File::create(data.with_extension("log")).unwrap();
    Command::new(binaries().join("postgres"))
        .arg("-D")
        .arg(data)
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-k"])
        .arg(sockets)
        .args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=60"])
        .args(["-c", "shared_memory_type=mmap", "-c", "dynamic_shared_memory_type=mmap"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The only value of a statement, by the simple protocol.
pub async fn value(client: &Client, statement: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(statement).await?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(value.unwrap_or_default())
}

pub fn hold(drain_ms: u64, hold_ms: u64) -> RouteOrder {
    RouteOrder::Hold { drain_ms, hold_ms }
}

pub fn switch(epoch: u64, to: u8) -> RouteOrder {
    RouteOrder::Switch { epoch: Epoch::read(epoch), to: region(to) }
}

pub fn release(epoch: u64, to: u8) -> RouteOrder {
    RouteOrder::Release { epoch: Epoch::read(epoch), to: region(to) }
}
