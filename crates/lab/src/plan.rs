//! The stack file of a lab: which datastores, nodes and roles, where, and with which settings.
//!
//! The settings are the specification's; where one differs, the line says why.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tier0_config::{
    AgentSettings, DatastoreSettings, Limits, NodeSettings, OrchestratorSettings, PostgresSettings,
    RedisMode, RedisSettings, SentinelSettings, Stack, StackSettings, TelemetrySettings,
};
use tier0_core::observe::{OnProcessDeath, ProtectionMode};
use tier0_core::record::{AutomaticMode, DatastoreKind};
use tier0_core::words::DatastoreName;

use crate::members;
use crate::placement::{Place, Placement};
use crate::pools;
use crate::preflight::{Preflight, SharedMemory};
use crate::routers;
use crate::secrets::SecretFiles;

/// What a lab is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// PostgreSQL clusters.
    pub postgres: u16,
    /// Redis replication groups.
    pub redis: u16,
    /// How a Redis switch tells Sentinel.
    pub redis_mode: RedisMode,
    /// Whether its writer may be moved without being asked.
    pub automatic: AutomaticMode,
    /// What commits of PostgreSQL do while no standby holds them.
    pub protection: ProtectionMode,
    /// Whether there are routers.
    pub routers: Routers,
    /// How many orchestrators.
    pub orchestrators: Orchestrators,
}

/// How many orchestrators a lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orchestrators {
    /// One at the witness, with a store of its own.
    #[default]
    One,
    /// One at each site, over an etcd cluster with a member at each.
    Each,
}

/// Whether a lab has tier0's own routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routers {
    /// It has none.
    None,
    /// One in each region, with a port for each datastore, beside the PgBouncers.
    Each,
    /// One in each region, and no PgBouncers.
    Alone,
}

/// The application's database.
pub const DATABASE: &str = "tier0_db";
/// The application's role.
pub const APPLICATION_USER: &str = "tier0user";
/// The role with which standbys stream.
pub const REPLICATION_USER: &str = "replication_user";
/// The name under which Sentinels know the first Redis.
pub const MASTER_NAME: &str = "tier0master";
/// Sentinel's `down-after-milliseconds`, as specified.
const DOWN_AFTER_MS: u64 = 5_000;

/// The stack of a lab in `directory`.
pub fn stack(
    directory: &Path,
    size: Size,
    placement: &mut Placement,
    found: &Preflight,
) -> Result<Stack> {
    if size.orchestrators == Orchestrators::Each && found.programs.etcd.is_none() {
        bail!("several orchestrators share an etcd, which is missing: apt-get install etcd-server");
    }
    if !(1..=9).contains(&size.postgres) || !(1..=9).contains(&size.redis) {
        bail!("a lab has 1 to 9 datastores of each kind");
    }
    let secrets = SecretFiles::below(directory);
    let sentinels = Place::ALL
        .into_iter()
        .map(|place| {
            let address = placement.choose(place, &format!("sentinel {}", place.name()), 26_379)?;
            Ok(SentinelSettings { site: place.site(), address })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut datastores = Vec::new();
    for number in 0..size.postgres {
        datastores.push(postgres(directory, number, size, placement, found, &secrets)?);
    }
    for number in 0..size.redis {
        datastores.push(redis(
            directory,
            number,
            size.redis_mode,
            placement,
            found,
            &secrets,
            &sentinels,
        )?);
    }
    let mut routes = match found.programs.pgbouncer {
        Some(_) if size.routers != Routers::Alone => {
            pools::routes(directory, &datastores, placement)?
        }
        Some(_) | None => Vec::new(),
    };
    if size.routers != Routers::None {
        routes.extend(routers::routes(directory, &datastores, placement)?);
    }
    let agents = Place::REGIONS
        .into_iter()
        .map(|place| {
            Ok(AgentSettings {
                region: place.region(),
                listen: placement.choose(place, &format!("agent {}", place.name()), 8_004)?,
                state_directory: directory.join(place.name()).join("agent"),
                // No unit of this machine starts a server of a lab.
                unit_directory: directory.join(place.name()).join("units"),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let sites = match size.orchestrators {
        Orchestrators::One => &[Place::Witness][..],
        Orchestrators::Each => &members::sites()[..],
    };
    let orchestrators = sites
        .iter()
        .map(|place| {
            let what = format!("orchestrator {}", place.name());
            Ok(OrchestratorSettings {
                site: place.site(),
                listen: placement.choose(*place, &what, 8_003)?,
                also_listen: match place {
                    Place::Witness => placement.choose_also(8_003)?,
                    Place::Region1 | Place::Region2 => Vec::new(),
                },
                state_directory: directory.join(place.name()).join("orchestrator"),
                operate_token_file: secrets.operate_token.clone().into(),
                accept_loss_token_file: secrets.accept_loss_token.clone().into(),
                open_reads_on_loopback: true,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let store = match size.orchestrators {
        Orchestrators::One => None,
        Orchestrators::Each => Some(members::store(placement)?),
    };
    Ok(Stack {
        stack: StackSettings {
            name: "lab".parse()?,
            regions: Place::REGIONS.into_iter().map(Place::region).collect(),
            automatic: size.automatic,
            probes: tier0_config::Probes::On,
            role_token_file: secrets.role_token.clone().into(),
        },
        orchestrators,
        store,
        agents,
        telemetry: telemetry(placement, &datastores)?,
        routes,
        datastores,
        // In a lab one failure after the other is tried out.
        limits: Limits { cool_down_ms: 1_000, ..Limits::default() },
    })
}

fn numbered(base: &str, number: u16) -> String {
    if number == 0 { base.to_owned() } else { format!("{base}-{}", number + 1) }
}

fn node(
    directory: &Path,
    place: Place,
    name: &str,
    address: SocketAddr,
    archive: Option<PathBuf>,
) -> NodeSettings {
    NodeSettings {
        region: place.region(),
        address,
        data_directory: directory.join(place.name()).join(name).join("data"),
        archive_directory: archive,
        log_file: directory.join("logs").join(format!("{name}.{}.log", place.name())),
        backup_stamp_file: None,
        backup_command: None,
        adopted: None,
    }
}

fn postgres(
    directory: &Path,
    number: u16,
    size: Size,
    placement: &mut Placement,
    found: &Preflight,
    secrets: &SecretFiles,
) -> Result<DatastoreSettings> {
    let name = numbered("main", number);
    let nodes = Place::REGIONS
        .into_iter()
        .map(|place| {
            let what = format!("PostgreSQL {name}.{}", place.name());
            let address = placement.choose(place, &what, 5_432 + number)?;
            let archive = directory.join(place.name()).join(&name).join("archive");
            Ok(node(directory, place, &name, address, Some(archive)))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(DatastoreSettings {
        name: name.parse()?,
        kind: DatastoreKind::Postgres,
        policy: None,
        on_process_death: None,
        nodes,
        postgres: Some(PostgresSettings {
            bin_directory: found.programs.postgres_directory.clone(),
            admin_user: "tier0_admin".to_owned(),
            replication_user: REPLICATION_USER.to_owned(),
            replication_password_file: secrets.replication_password.clone().into(),
            database: DATABASE.to_owned(),
            application_user: APPLICATION_USER.to_owned(),
            application_password_file: secrets.application_password.clone().into(),
            client_networks: vec![placement.clients()],
            parameters: postgres_parameters(found.shared_memory),
            protection: size.protection,
        }),
        redis: None,
    })
}

fn postgres_parameters(shared_memory: SharedMemory) -> BTreeMap<String, String> {
    let specified = [
        ("wal_level", "replica"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("synchronous_commit", "on"),
        ("checkpoint_timeout", "15min"),
        ("checkpoint_completion_target", "0.9"),
        ("max_wal_size", "4GB"),
        ("min_wal_size", "80MB"),
        ("hot_standby", "on"),
        ("hot_standby_feedback", "on"),
        ("max_standby_streaming_delay", "30s"),
    ];
    let for_one_machine = [("shared_buffers", "128MB"), ("max_connections", "200")];
    let kind = match shared_memory {
        SharedMemory::Posix => None,
        SharedMemory::Mmap => Some(("dynamic_shared_memory_type", "mmap")),
    };
    specified
        .into_iter()
        .chain(for_one_machine)
        .chain(kind)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn redis(
    directory: &Path,
    number: u16,
    mode: RedisMode,
    placement: &mut Placement,
    found: &Preflight,
    secrets: &SecretFiles,
    sentinels: &[SentinelSettings],
) -> Result<DatastoreSettings> {
    let name = numbered("cache", number);
    let nodes = Place::REGIONS
        .into_iter()
        .map(|place| {
            let what = format!("Redis {name}.{}", place.name());
            let address = placement.choose(place, &what, 6_379 + number)?;
            Ok(node(directory, place, &name, address, None))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(DatastoreSettings {
        name: name.parse()?,
        kind: DatastoreKind::Redis,
        policy: None,
        // The default starts it again with what its disk has, which may lack a second of writes. The
        // other region's replica lacks less.
        on_process_death: Some(OnProcessDeath::Failover),
        nodes,
        postgres: None,
        redis: Some(RedisSettings {
            server_binary: found.programs.redis_server.clone(),
            password_file: secrets.redis_password.clone().into(),
            master_name: numbered(MASTER_NAME, number),
            down_after_ms: DOWN_AFTER_MS,
            mode,
            sentinels: sentinels.to_vec(),
            parameters: redis_parameters(),
        }),
    })
}

fn redis_parameters() -> BTreeMap<String, Vec<String>> {
    [
        ("save", vec!["900 1", "300 10", "60 10000"]),
        ("appendonly", vec!["yes"]),
        ("appendfilename", vec!["appendonly.aof"]),
        ("appendfsync", vec!["everysec"]),
        ("maxmemory", vec!["2gb"]),
        // Specified is allkeys-lru. An acknowledged write that is evicted is a lost write.
        ("maxmemory-policy", vec!["noeviction"]),
        ("protected-mode", vec!["yes"]),
        // Specified is `no` on the master; roles swap, and only a replica obeys this setting.
        ("replica-read-only", vec!["yes"]),
        // The default of 1 MB is less than the old side misses while it restarts under load.
        ("repl-backlog-size", vec!["64mb"]),
    ]
    .into_iter()
    .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect()))
    .collect()
}

fn telemetry(
    placement: &mut Placement,
    datastores: &[DatastoreSettings],
) -> Result<Vec<TelemetrySettings>> {
    let first = |kind: DatastoreKind| -> Result<DatastoreName> {
        match datastores.iter().find(|datastore| datastore.kind == kind) {
            Some(datastore) => Ok(datastore.name.clone()),
            None => bail!("the reference backend needs a {kind} datastore"),
        }
    };
    Place::REGIONS
        .into_iter()
        .zip([8_000, 8_001])
        .map(|(place, port)| {
            let what = format!("telemetry-api {}", place.name());
            Ok(TelemetrySettings {
                region: place.region(),
                listen: placement.choose(place, &what, port)?,
                also_listen: if place == Place::Region1 {
                    placement.choose_also(port)?
                } else {
                    Vec::new()
                },
                retention_hours: 0,
                postgres: first(DatastoreKind::Postgres)?,
                redis: first(DatastoreKind::Redis)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;
    use crate::preflight::Programs;

    #[test]
    fn the_stack_file_is_valid_with_many_datastores() {
        let found = Preflight {
            programs: Programs {
                postgres_directory: "/pg".into(),
                redis_server: "/r".into(),
                redis_sentinel: "/s".into(),
                redis_cli: "/c".into(),
                pgbouncer: Some("/b".into()),
                etcd: None,
            },
            shared_memory: SharedMemory::Mmap,
        };
        let mut placement = Placement::new(197, Network::Loopback).unwrap();
        let size = Size {
            postgres: 2,
            redis: 2,
            redis_mode: RedisMode::Vote,
            automatic: AutomaticMode::Armed,
            protection: ProtectionMode::MaxAvailability,
            routers: Routers::None,
            orchestrators: Orchestrators::One,
        };
        let stack = stack(Path::new("/lab"), size, &mut placement, &found).unwrap();
        assert_eq!(stack.problems(), Vec::<String>::new());
        let names: Vec<_> = stack.datastores.iter().map(|one| one.name.to_string()).collect();
        assert_eq!(names, ["main", "main-2", "cache", "cache-2"]);
        let text = stack.to_toml().unwrap();
        assert!(text.contains("tier0master-2"));
        let routes: Vec<_> = stack.routes.iter().map(|one| one.id().to_string()).collect();
        assert_eq!(routes, ["pool.region1", "pool.region2", "pool-2.region1", "pool-2.region2"]);
        assert!(text.contains("dynamic_shared_memory_type"));
    }

    #[test]
    fn sites_that_are_namespaces_have_the_usual_ports_and_let_clients_in_from_outside() {
        let found = Preflight {
            programs: Programs {
                postgres_directory: "/pg".into(),
                redis_server: "/r".into(),
                redis_sentinel: "/s".into(),
                redis_cli: "/c".into(),
                pgbouncer: Some("/b".into()),
                etcd: Some("/e".into()),
            },
            shared_memory: SharedMemory::Posix,
        };
        let mut placement = Placement::new(9, Network::Namespaces).unwrap();
        let size = Size {
            postgres: 1,
            redis: 1,
            redis_mode: RedisMode::Vote,
            automatic: AutomaticMode::Off,
            protection: ProtectionMode::MaxAvailability,
            routers: Routers::Each,
            orchestrators: Orchestrators::Each,
        };
        let stack = stack(Path::new("/lab"), size, &mut placement, &found).unwrap();
        assert_eq!(stack.problems(), Vec::<String>::new());
        let main = &stack.datastores[0];
        assert_eq!(main.nodes[1].address.to_string(), "198.19.9.2:5432");
        assert_eq!(main.postgres.as_ref().unwrap().client_networks, ["198.19.9.0/24"]);
        let sites: Vec<_> = stack.orchestrators.iter().map(|one| one.site.as_str()).collect();
        assert_eq!(sites, ["witness", "region1", "region2"]);
        let members = stack.store.unwrap().etcd;
        assert_eq!(members[0].to_string(), "198.19.9.3:2379");
    }
}
