//! What a lab consists of at this moment: every process, and how to connect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use tier0_config::{DatastoreSettings, NodeSettings, RouteKind, Stack};
use tier0_core::record::DatastoreKind;

use crate::processes::{self, Class, Process};
use crate::state::{Kind, LabState, Phase};

/// A lab as seen now.
#[derive(Debug, Clone, Serialize)]
pub struct LabStatus {
    /// Which instance.
    pub instance: u8,
    /// Where its files are.
    pub directory: PathBuf,
    /// How far it is.
    pub phase: Phase,
    /// The orchestrator's API.
    pub api: String,
    /// The file with the token that may operate.
    pub operate_token_file: PathBuf,
    /// Every process, servers included.
    pub processes: Vec<ProcessStatus>,
    /// Ready-to-use connection strings.
    pub connections: Vec<Connection>,
    /// The command that removes the lab.
    pub removal: String,
}

/// One process.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// Its name within the lab.
    pub name: String,
    /// Where it runs.
    pub site: String,
    /// What it is.
    pub kind: String,
    /// Its number, if it runs.
    pub pid: Option<i32>,
    /// Its IP address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Its log.
    pub log: PathBuf,
    /// Where its data is.
    pub data_directory: PathBuf,
}

/// How to reach something.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// What.
    pub name: String,
    /// For clients' libraries; holds the password.
    pub url: String,
}

/// Look at a lab.
pub fn look(state: &LabState) -> Result<LabStatus> {
    let stack = state.stack()?;
    let running = processes::of_lab(&state.directory, state.uid);
    let mut all: Vec<ProcessStatus> = state
        .started
        .iter()
        .map(|one| ProcessStatus {
            name: one.name.clone(),
            site: one.site.to_string(),
            kind: kind_name(one.kind).to_owned(),
            pid: processes::is_running(one.process).then_some(one.process.pid),
            address: one.address.ip().to_string(),
            port: one.address.port(),
            log: one.log.clone(),
            data_directory: one.directory.clone(),
        })
        .collect();
    for datastore in &stack.datastores {
        for node in &datastore.nodes {
            all.push(server_status(datastore, node, &running));
        }
    }
    Ok(LabStatus {
        instance: state.instance,
        directory: state.directory.clone(),
        phase: state.phase,
        api: state.api.clone(),
        operate_token_file: state.operate_token_file.clone(),
        processes: all,
        connections: connections(&stack, state)?,
        removal: state.removal(),
    })
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Store => "etcd",
        Kind::Sentinel => "sentinel",
        Kind::Agent => "agent",
        Kind::Orchestrator => "orchestrator",
        Kind::Route => "pgbouncer",
        Kind::Router => "router",
        Kind::Telemetry => "telemetry-api",
        Kind::Links => "links",
    }
}

fn server_status(
    datastore: &DatastoreSettings,
    node: &NodeSettings,
    running: &[Process],
) -> ProcessStatus {
    ProcessStatus {
        name: format!("{}.{}", datastore.name, node.region),
        site: node.region.to_string(),
        kind: match datastore.kind {
            DatastoreKind::Postgres => "postgres",
            DatastoreKind::Redis => "redis",
        }
        .to_owned(),
        pid: server_process(datastore.kind, &node.data_directory, running),
        address: node.address.ip().to_string(),
        port: node.address.port(),
        log: node.log_file.clone(),
        data_directory: node.data_directory.clone(),
    }
}

/// The number of the server that works in a data directory.
pub fn server_process(
    kind: DatastoreKind,
    data_directory: &Path,
    running: &[Process],
) -> Option<i32> {
    running
        .iter()
        .filter(|process| process.directory == data_directory)
        .find(|process| match kind {
            DatastoreKind::Postgres => process.class(running) == Class::Postmaster,
            DatastoreKind::Redis => {
                // A child that saves the data works in the same directory.
                !running.iter().any(|other| other.identity.pid == process.parent)
            }
        })
        .map(|process| process.identity.pid)
}

fn connections(stack: &Stack, state: &LabState) -> Result<Vec<Connection>> {
    let mut all = vec![Connection { name: "api".to_owned(), url: state.api.clone() }];
    for datastore in &stack.datastores {
        let addresses: Vec<SocketAddr> = datastore.nodes.iter().map(|node| node.address).collect();
        let name = datastore.name.to_string();
        if let Some(postgres) = &datastore.postgres {
            let password = postgres.application_password_file.read()?;
            let hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let url = |hosts: &str| {
                let (user, database) = (&postgres.application_user, &postgres.database);
                format!("postgresql://{user}:{}@{hosts}/{database}", password.expose())
            };
            let direct = format!("{}?target_session_attrs=read-write", url(&hosts.join(",")));
            all.push(Connection { name, url: direct });
            for route in stack.routes.iter().filter(|route| route.datastore == datastore.name) {
                let reads = route.read_address.map(|address| url(&address.to_string()));
                let url = url(&route.address.to_string());
                let kind = match route.kind {
                    RouteKind::Pgbouncer => "PgBouncer",
                    RouteKind::Haproxy => "HAProxy",
                    RouteKind::Proxy => "router",
                };
                all.push(Connection { name: format!("{} ({kind})", route.id()), url });
                let name = format!("{} ({kind}, to read)", route.id());
                all.extend(reads.map(|url| Connection { name, url }));
            }
        } else if let Some(redis) = &datastore.redis {
            let password = redis.password_file.read()?;
            let url = |address: SocketAddr| format!("redis://:{}@{address}", password.expose());
            for node in &datastore.nodes {
                let name = format!("{name}.{}", node.region);
                all.push(Connection { name, url: url(node.address) });
            }
            for route in stack.routes.iter().filter(|route| route.datastore == datastore.name) {
                let id = route.id();
                all.push(Connection { name: format!("{id} (router)"), url: url(route.address) });
                let name = format!("{id} (router, to read)");
                all.extend(route.read_address.map(|at| Connection { name, url: url(at) }));
            }
            for sentinel in &redis.sentinels {
                all.push(Connection {
                    name: format!("{} at sentinel.{}", redis.master_name, sentinel.site),
                    url: format!("redis://{}", sentinel.address),
                });
            }
        }
    }
    for telemetry in &stack.telemetry {
        all.push(Connection {
            name: format!("telemetry-api.{}", telemetry.region),
            url: format!("http://{}", telemetry.listen),
        });
    }
    Ok(all)
}

/// The status as text for people.
pub fn text(status: &LabStatus) -> String {
    let mut text = format!(
        "lab {} in {}\n\n{:<24} {:<14} {:>8}  {:<22} log\n",
        status.instance,
        status.directory.display(),
        "name",
        "kind",
        "pid",
        "address"
    );
    for process in &status.processes {
        text.push_str(&format!(
            "{:<24} {:<14} {:>8}  {:<22} {}\n",
            process.name,
            process.kind,
            process.pid.map_or("down".to_owned(), |pid| pid.to_string()),
            format!("{}:{}", process.address, process.port),
            process.log.display()
        ));
    }
    text.push_str("\nconnect\n");
    for connection in &status.connections {
        text.push_str(&format!("  {:<34} {}\n", connection.name, connection.url));
    }
    text.push_str(&format!("\nremove it: {}\n", status.removal));
    text
}
