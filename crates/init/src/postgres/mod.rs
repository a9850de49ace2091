//! One look at a PostgreSQL cluster, as the superuser that the operator gave.

mod judge;
mod nodes;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tier0_core::words::{DatastoreName, NodeId, Region};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::credentials::{Credentials, PostgresLogin};
use crate::request::NamedNodes;

pub use judge::judge;
pub use nodes::adopter;
pub use statements::run as run_statement;

/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// One cluster.
pub struct Cluster {
    pub name: DatastoreName,
    pub nodes: Vec<Node>,
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub facts: Result<Facts, String>,
}

/// What a server says of itself.
#[derive(Debug, Deserialize)]
pub struct Facts {
    pub version: u32,
    pub in_recovery: bool,
    pub system: String,
    pub superuser: bool,
    pub settings: BTreeMap<String, String>,
    pub pending: Option<BTreeSet<String>>,
    pub roles: Option<BTreeMap<String, Role>>,
    pub databases: BTreeSet<String>,
    pub slots: Option<BTreeSet<String>>,
    pub logical_slots: u32,
    pub overrides: Option<Vec<String>>,
    pub tablespaces: u32,
    pub streaming: bool,
    /// Whether the application's database has what canaries are written to.
    #[serde(default)]
    pub has_canary: bool,
}

/// A role.
#[derive(Debug, Deserialize)]
pub struct Role {
    pub superuser: bool,
    pub replication: bool,
    pub login: bool,
    pub checkpoint: bool,
    pub reads_files: bool,
    pub connects: bool,
}

/// Where a node's files are, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this host, and ours.
    Here,
    /// On this host, and another user's.
    OtherUser(u32),
    /// Not to be seen from here.
    Elsewhere,
}

/// Where a directory is.
pub fn place(directory: &Path) -> Place {
    match std::fs::metadata(directory) {
        Ok(meta) if meta.uid() == rustix::process::geteuid().as_raw() => Place::Here,
        Ok(meta) => Place::OtherUser(meta.uid()),
        Err(_) => Place::Elsewhere,
    }
}

const LOOK: &str = r"SELECT json_build_object(
'version', current_setting('server_version_num')::int,
'in_recovery', pg_is_in_recovery(),
'system', (SELECT system_identifier::text FROM pg_control_system()),
'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
'settings', (SELECT json_object_agg(name, setting) FROM pg_settings),
'pending', (SELECT json_agg(name) FROM pg_settings WHERE pending_restart),
'roles', (SELECT json_object_agg(rolname, json_build_object('superuser', rolsuper,
    'replication', rolreplication, 'login', rolcanlogin,
    'checkpoint', CASE WHEN to_regrole('pg_checkpoint') IS NULL THEN rolsuper
                  ELSE pg_has_role(oid, 'pg_checkpoint', 'member') END,
    'reads_files', has_function_privilege(oid,
        'pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE')
        AND has_function_privilege(oid, 'pg_read_binary_file(text)', 'EXECUTE')
        AND has_function_privilege(oid, 'pg_stat_file(text, boolean)', 'EXECUTE')
        AND has_function_privilege(oid, 'pg_ls_dir(text, boolean, boolean)', 'EXECUTE'),
    'connects', has_database_privilege(oid, 'postgres', 'CONNECT')))
    FROM pg_roles WHERE rolname !~ '^pg_'),
'databases', (SELECT json_agg(datname) FROM pg_database WHERE datallowconn),
'slots', (SELECT json_agg(slot_name) FROM pg_replication_slots),
'logical_slots', (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'),
'overrides', (SELECT json_agg(coalesce(r.rolname, '*') || '@' || coalesce(d.datname, '*')
    || ': ' || c) FROM pg_db_role_setting g LEFT JOIN pg_roles r ON r.oid = g.setrole
    LEFT JOIN pg_database d ON d.oid = g.setdatabase, unnest(g.setconfig) c
    WHERE c LIKE 'synchronous_commit=%'
    AND c NOT IN ('synchronous_commit=on', 'synchronous_commit=remote_apply')),
'tablespaces', (SELECT count(*) FROM pg_tablespace WHERE spcname !~ '^pg_'),
'streaming', EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
)::text";

/// Look at all nodes of a cluster.
pub async fn look(nodes: &NamedNodes, credentials: &Credentials) -> Cluster {
    let login = credentials.postgres(&nodes.name);
    let mut cluster = Cluster { name: nodes.name.clone(), nodes: Vec::new() };
    for (region, address) in &nodes.nodes {
        let facts = match &login {
            Ok(login) => look_at(*address, login).await.map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        };
        let id = NodeId::new(nodes.name.clone(), region.clone());
        cluster.nodes.push(Node { id, address: *address, facts });
    }
    cluster
}

async fn look_at(address: SocketAddr, login: &PostgresLogin) -> Result<Facts> {
    let session = open(address, login, "postgres").await?;
    let mut facts: Facts =
        serde_json::from_str(&value(&session, LOOK).await?).context("what the server says")?;
    if facts.databases.contains(&login.database) {
        let session = open(address, login, &login.database).await?;
        let there = "SELECT to_regclass('tier0.canary') IS NOT NULL";
        facts.has_canary = value(&session, there).await? == "t";
    }
    Ok(facts)
}

/// A session; its connection ends with the client.
pub async fn open(address: SocketAddr, login: &PostgresLogin, database: &str) -> Result<Client> {
    let mut config = Config::new();
    config
        .host(address.ip().to_string())
        .port(address.port())
        .user(&login.user)
        .dbname(database)
        .application_name("tier0-init")
        .connect_timeout(LIMIT);
    if let Some(password) = &login.password {
        config.password(password.expose());
    }
    let connecting = tokio::time::timeout(LIMIT, config.connect(NoTls));
    let (client, connection) = connecting
        .await
        .map_err(|_| anyhow!("{address} does not answer"))?
        .map_err(|error| anyhow!("{address}, database {database}: {}", described(&error)))?;
    tokio::spawn(async move {
        // How it ended is known to whoever uses the client.
        let _ = connection.await;
    });
    Ok(client)
}

/// The only value of a query.
pub async fn value(client: &Client, sql: &str) -> Result<String> {
    let asked = tokio::time::timeout(LIMIT, client.simple_query(sql));
    let messages = asked
        .await
        .map_err(|_| anyhow!("no answer within {} s", LIMIT.as_secs()))?
        .map_err(|error| anyhow!("{}", described(&error)))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    row.context("an answer without a value")
}

/// An error in the server's words.
pub fn described(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(answer) => format!("{} ({})", answer.message(), answer.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

impl Cluster {
    /// The node that is primary, if there is exactly one.
    pub fn primary(&self) -> Option<&Node> {
        let is = |node: &&Node| node.facts.as_ref().is_ok_and(|facts| !facts.in_recovery);
        match self.nodes.iter().filter(is).collect::<Vec<_>>().as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Its region.
    pub fn writer(&self) -> Option<&Region> {
        Some(self.primary()?.id.region())
    }
}

impl Facts {
    /// A setting as `pg_settings` has it.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// A setting as a number, in its own unit.
    pub fn number(&self, name: &str) -> i64 {
        self.setting(name).parse().unwrap_or(0)
    }

    /// A setting as a path.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(self.setting(name))
    }
}
