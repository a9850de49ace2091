//! Plain sessions with the servers, as the application, as PostgreSQL's administrator, and with
//! the Sentinels.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use tier0_config::DatastoreSettings;
use tier0_core::words::NodeId;
use tier0_lab::account::Account;
use tier0_lab::ledger::connect_redis;
use tokio_postgres::{Client, Config, NoTls};

use super::Stack;

const LIMIT: Duration = Duration::from_secs(5);

async fn connect(config: &Config) -> Result<Client, String> {
    let connecting = tokio::time::timeout(LIMIT, config.connect(NoTls)).await;
    let (client, connection) =
        connecting.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("{error:?}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// A session of the application with whichever PostgreSQL takes writes, by the connection string
/// that `lab status` shows.
pub async fn writer_session(stack: &Stack) -> Result<Client, String> {
    let connections = stack.look().connections;
    let main = connections.iter().find(|connection| connection.name == "main").unwrap();
    connect(&main.url.parse().unwrap()).await
}

/// A session of the application with one node, `datastore.region`.
pub async fn postgres(stack: &Stack, node: &str) -> Result<Client, String> {
    let (datastore, address) = find(stack, node);
    let settings = datastore.postgres.unwrap();
    let password = settings.application_password_file.read().unwrap();
    let mut config = Config::new();
    config
        .host(address.ip().to_string())
        .port(address.port())
        .dbname(&settings.database)
        .user(&settings.application_user)
        .password(password.expose());
    connect(&config).await
}

/// Rows of a statement by PostgreSQL's administrator on one node, fields separated by `|`.
pub fn admin(stack: &Stack, node: &str, sql: &str) -> Result<Vec<String>, String> {
    let (datastore, address) = find(stack, node);
    let settings = datastore.postgres.unwrap();
    let id: NodeId = node.parse().unwrap();
    let place = stack.directory.join(id.region().as_str()).join(id.datastore().as_str());
    let output = Account::unprivileged()
        .unwrap()
        .command(settings.bin_directory.join("psql"), &stack.directory)
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-U", &settings.admin_user])
        .args(["-p", &address.port().to_string(), "-c", sql, "-h"])
        .arg(place.join("socket"))
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// A session with one Redis node.
pub async fn redis(stack: &Stack, node: &str) -> Result<MultiplexedConnection, String> {
    let (datastore, address) = find(stack, node);
    let password = datastore.redis.unwrap().password_file.read().unwrap();
    connect_redis(address, Some(&password), LIMIT).await.map_err(|error| format!("{error:#}"))
}

fn find(stack: &Stack, node: &str) -> (DatastoreSettings, SocketAddr) {
    let id: NodeId = node.parse().unwrap();
    let settings = stack.state().stack().unwrap();
    let address = settings.node(&id).unwrap().address;
    (settings.datastore(id.datastore()).unwrap().clone(), address)
}

/// Whether the application can write a row now: acknowledged or not.
pub async fn acknowledged(session: &Client, device: &str) -> Result<(), String> {
    let sql = "INSERT INTO device_telemetry \
               (device_id, device_type, site_id, timestamp_utc, metrics, status) \
               VALUES ($1, 'turbine', 'TEST', now(), '{}', '{}')";
    let insert = async { session.execute(sql, &[&device]).await };
    match tokio::time::timeout(LIMIT, insert).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Ok(Ok(_)) => Ok(()),
    }
}

/// A Sentinel.
pub struct Sentinel {
    pub site: String,
    address: SocketAddr,
}

type Fields = HashMap<String, String>;

impl Sentinel {
    /// All of a stack.
    pub fn all(stack: &Stack) -> Vec<Sentinel> {
        let settings = stack.state().stack().unwrap();
        let redis = settings.datastores.iter().find_map(|datastore| datastore.redis.clone());
        let all = redis.unwrap().sentinels.into_iter();
        all.map(|one| Sentinel { site: one.site.to_string(), address: one.address }).collect()
    }

    /// `SENTINEL` with these words.
    pub async fn ask<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, String> {
        let connection = connect_redis(self.address, None, LIMIT).await;
        let mut connection = connection.map_err(|error| format!("{}: {error:#}", self.site))?;
        let mut command = ::redis::cmd("SENTINEL");
        command.arg(words);
        let answer = tokio::time::timeout(LIMIT, command.query_async(&mut connection)).await;
        let answer = answer.map_err(|_| format!("{}: no answer", self.site))?;
        answer.map_err(|error| format!("{}: {words:?}: {error}", self.site))
    }

    /// Demand that it knows this datastore as it is, and return its config epoch.
    pub async fn agrees(
        &self,
        name: &str,
        masters: usize,
        master: SocketAddr,
        replica: SocketAddr,
    ) -> Result<u64, String> {
        let all: Vec<Fields> = self.ask(&["masters"]).await?;
        let fields: Fields = self.ask(&["master", name]).await?;
        let replicas: Vec<Fields> = self.ask(&["replicas", name]).await?;
        let peers: Vec<Fields> = self.ask(&["sentinels", name]).await?;
        let (ip, port): (String, u16) = self.ask(&["get-master-addr-by-name", name]).await?;
        // The quorum is raised so that Sentinels never act by themselves (D2): the command that
        // asks for it says so, and the number of usable Sentinels beside it.
        let quorum = self.ask::<String>(&["ckquorum", name]).await;
        if !quorum.as_ref().is_err_and(|error| error.contains("NOQUORUM")) {
            return Err(format!("{}: ckquorum says {quorum:?}, it should be NOQUORUM", self.site));
        }
        let address = |fields: &Fields| format!("{}:{}", fields["ip"], fields["port"]);
        let expected: BTreeMap<&str, (String, String)> = [
            ("masters", (all.len().to_string(), masters.to_string())),
            ("get-master-addr", (format!("{ip}:{port}"), master.to_string())),
            ("master", (address(&fields), master.to_string())),
            ("its flags", (fields["flags"].clone(), "master".to_owned())),
            ("its replicas", (fields["num-slaves"].clone(), "1".to_owned())),
            ("its other Sentinels", (fields["num-other-sentinels"].clone(), "2".to_owned())),
            (
                "replicas",
                (replicas.iter().map(address).collect::<Vec<_>>().join(" "), replica.to_string()),
            ),
            ("sentinels", (peers.len().to_string(), "2".to_owned())),
            (
                "flags of the replica",
                (replicas.iter().map(|one| one["flags"].as_str()).collect(), "slave".to_owned()),
            ),
        ]
        .into();
        for (what, (is, should)) in expected {
            if is != should {
                return Err(format!("{}: {what} is {is:?}, should be {should:?}", self.site));
            }
        }
        fields["config-epoch"].parse().map_err(|error| format!("config-epoch: {error}"))
    }
}
