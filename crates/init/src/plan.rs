//! The stack file that describes the servers as they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use tier0_config::{
    AdoptedSettings, AgentSettings, DatastoreSettings, Limits, NodeSettings, OrchestratorSettings,
    PostgresSettings, RedisMode, RedisSettings, SentinelSettings, Stack, StackSettings,
};
use tier0_core::observe::ProtectionMode;
use tier0_core::record::{AutomaticMode, DatastoreKind};
use tier0_core::words::{NodeId, Region};

use crate::Seen;
use crate::credentials::Credentials;
use crate::postgres::{Cluster, Facts, Node};
use crate::redis::{self, Group};
use crate::request::InitArgs;
use crate::secrets::{SecretFiles, redis_password};

/// The port that agents usually listen on.
const AGENT_PORT: u16 = 8_004;

/// Settings that the protocol leans on: name, value, and how many of the setting's own units are
/// enough already. A server that has enough keeps what it has.
const LEAST: [(&str, &str, i64); 2] = [
    // MB; a rewind needs WAL back to the checkpoint before the fork.
    ("wal_keep_size", "512MB", 512),
    ("max_slot_wal_keep_size", "4GB", 0),
];
/// The same for time-outs, in milliseconds: longer ones prolong an outage.
const MOST: [(&str, &str, i64); 3] = [
    ("wal_retrieve_retry_interval", "100ms", 100),
    ("wal_sender_timeout", "10s", 10_000),
    ("wal_receiver_timeout", "10s", 10_000),
];

/// Describe the servers.
pub fn stack(
    args: &InitArgs,
    credentials: &Credentials,
    seen: &Seen,
    secrets: &SecretFiles,
) -> Result<Stack> {
    let regions = regions(args, seen)?;
    let mut datastores = Vec::new();
    for cluster in &seen.postgres {
        datastores.push(postgres(args, credentials, cluster, secrets)?);
    }
    for group in &seen.redis {
        datastores.push(redis(args, group, seen, secrets)?);
    }
    let mut agents = Vec::new();
    for region in &regions {
        let given = args.agent.iter().find(|one| one.site.as_str() == region.as_str());
        let node = datastores.iter().find_map(|one| one.node(region));
        let listen = match (given, node) {
            (Some(given), _) => given.address,
            (None, Some(node)) => SocketAddr::new(node.address.ip(), AGENT_PORT),
            (None, None) => bail!("no node in region {region}"),
        };
        let state_directory = args.directory.join("state").join(format!("agent.{region}"));
        agents.push(AgentSettings {
            region: region.clone(),
            listen,
            state_directory,
            unit_directory: args.units.clone(),
        });
    }
    let site = args.orchestrator.site.clone();
    let state_directory = args.directory.join("state").join(format!("orchestrator.{site}"));
    let orchestrator = OrchestratorSettings {
        site,
        listen: args.orchestrator.address,
        also_listen: Vec::new(),
        state_directory,
        operate_token_file: secrets.source("operate-token")?,
        accept_loss_token_file: secrets.source("accept-loss-token")?,
        open_reads_on_loopback: true,
    };
    Ok(Stack {
        stack: StackSettings {
            name: args.name.clone(),
            regions,
            automatic: AutomaticMode::Observe,
            probes: tier0_config::Probes::On,
            role_token_file: secrets.source("role-token")?,
        },
        orchestrators: vec![orchestrator],
        store: None,
        agents,
        datastores,
        routes: Vec::new(),
        telemetry: Vec::new(),
        limits: Limits::default(),
    })
}

/// The two regions, the writer's first.
fn regions(args: &InitArgs, seen: &Seen) -> Result<Vec<Region>> {
    let mut writers = Vec::new();
    for cluster in &seen.postgres {
        writers.push(cluster.writer().cloned().ok_or_else(|| {
            let why = cluster.nodes.iter().filter_map(|node| node.facts.as_ref().err());
            let why: Vec<_> = why.map(String::as_str).collect();
            anyhow!("{} has not exactly one primary; {}", cluster.name, why.join("; "))
        })?);
    }
    for group in &seen.redis {
        writers.push(group.writer().cloned().ok_or_else(|| {
            let why = group.nodes.iter().filter_map(|node| node.facts.as_ref().err());
            let why: Vec<_> = why.map(String::as_str).collect();
            anyhow!("{} has not exactly one master; {}", group.name, why.join("; "))
        })?);
    }
    let home = writers.first().cloned().context("there is no datastore")?;
    if let Some(other) = writers.iter().find(|one| **one != home) {
        bail!("one datastore's writer is in {home}, another's in {other}: move one of them first");
    }
    let named = args.postgres.iter().chain(&args.redis).flat_map(|one| &one.nodes);
    let other = named.map(|(region, _)| region).find(|region| **region != home);
    Ok(vec![home.clone(), other.context("there is one region")?.clone()])
}

fn log_file(args: &InitArgs, id: &NodeId) -> PathBuf {
    args.directory.join("logs").join(format!("{id}.log"))
}

fn postgres(
    args: &InitArgs,
    credentials: &Credentials,
    cluster: &Cluster,
    secrets: &SecretFiles,
) -> Result<DatastoreSettings> {
    let login = credentials.postgres(&cluster.name)?;
    let mut nodes = Vec::new();
    for node in &cluster.nodes {
        nodes.push(postgres_node(args, node)?);
    }
    let facts = cluster.primary().and_then(|node| node.facts.as_ref().ok());
    let facts = facts.context("no primary")?;
    Ok(DatastoreSettings {
        name: cluster.name.clone(),
        kind: DatastoreKind::Postgres,
        policy: None,
        on_process_death: None,
        nodes,
        postgres: Some(PostgresSettings {
            bin_directory: bin_directory(facts),
            admin_user: "tier0_admin".to_owned(),
            replication_user: "tier0_replication".to_owned(),
            replication_password_file: secrets.source("replication-password")?,
            database: login.database.clone(),
            application_user: login.application_user.clone(),
            application_password_file: secrets.source("application-password")?,
            client_networks: vec!["127.0.0.0/8".to_owned()],
            parameters: parameters(facts),
            protection: ProtectionMode::MaxAvailability,
        }),
        redis: None,
    })
}

fn postgres_node(args: &InitArgs, node: &Node) -> Result<NodeSettings> {
    let facts = node.facts.as_ref().map_err(|why| anyhow!("{}: {why}", node.id))?;
    let config_file = facts.path("config_file");
    let config_directory = config_file.parent().context("config_file has no directory")?;
    for name in ["hba_file", "ident_file"] {
        if facts.path(name).parent() != Some(config_directory) {
            bail!(
                "{}: {name} is {}, not beside {}; tier0 expects them together",
                node.id,
                facts.setting(name),
                config_file.display()
            );
        }
    }
    let sockets = facts.setting("unix_socket_directories");
    let socket = sockets.split(',').map(str::trim).find(|one| one.starts_with('/'));
    let socket = socket.with_context(|| format!("{} has no Unix socket", node.id))?;
    let data_directory = facts.path("data_directory");
    let archive = args.directory.join("archive").join(node.id.to_string());
    Ok(NodeSettings {
        region: node.id.region().clone(),
        address: node.address,
        archive_directory: Some(archive),
        log_file: log_file(args, &node.id),
        backup_stamp_file: None,
        backup_command: None,
        adopted: Some(AdoptedSettings {
            config_directory: config_directory.to_owned(),
            socket_directory: socket.into(),
        }),
        data_directory,
    })
}

/// Where the running server's programs are: by its process if it is here, else where Debian has
/// them.
fn bin_directory(facts: &Facts) -> PathBuf {
    let pid = std::fs::read_to_string(facts.path("data_directory").join("postmaster.pid"));
    let pid = pid.ok().and_then(|text| text.lines().next().map(str::to_owned));
    let program = pid.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok());
    match program.as_deref().and_then(Path::parent) {
        Some(directory) => directory.to_owned(),
        None => format!("/usr/lib/postgresql/{}/bin", facts.version / 10_000).into(),
    }
}

fn parameters(facts: &Facts) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for (name, value, least) in LEAST {
        if facts.number(name) < least {
            parameters.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value, most) in MOST {
        if !(1..=most).contains(&facts.number(name)) {
            parameters.insert(name.to_owned(), value.to_owned());
        }
    }
    let restore = facts.setting("restore_command");
    if !restore.is_empty() {
        parameters.insert("restore_command".to_owned(), restore.to_owned());
    }
    parameters
}

fn redis(
    args: &InitArgs,
    group: &Group,
    seen: &Seen,
    secrets: &SecretFiles,
) -> Result<DatastoreSettings> {
    let mut nodes = Vec::new();
    for node in &group.nodes {
        let facts = node.facts.as_ref().map_err(|why| anyhow!("{}: {why}", node.id))?;
        let log = PathBuf::from(facts.setting("logfile"));
        nodes.push(NodeSettings {
            region: node.id.region().clone(),
            address: node.address,
            data_directory: facts.setting("dir").into(),
            archive_directory: None,
            log_file: if log.is_absolute() { log } else { log_file(args, &node.id) },
            backup_stamp_file: None,
            backup_command: None,
            adopted: None,
        });
    }
    let master = group.master().context("no master")?;
    let facts = master.facts.as_ref().map_err(|why| anyhow!("{why}"))?;
    let known = seen.sentinels.iter().find_map(|one| one.knows(master.address));
    let sentinels = args
        .sentinel
        .iter()
        .map(|one| SentinelSettings { site: one.site.clone(), address: one.address });
    Ok(DatastoreSettings {
        name: group.name.clone(),
        kind: DatastoreKind::Redis,
        policy: None,
        on_process_death: None,
        nodes,
        postgres: None,
        redis: Some(RedisSettings {
            server_binary: facts.executable.clone(),
            password_file: secrets.source(&redis_password(&group.name))?,
            master_name: known.map_or_else(|| group.name.to_string(), |one| one.name.clone()),
            down_after_ms: known.map_or(5_000, |one| one.down_after_ms.max(3_000)),
            mode: RedisMode::Vote,
            sentinels: sentinels.collect(),
            parameters: redis::parameters(group),
        }),
    })
}
