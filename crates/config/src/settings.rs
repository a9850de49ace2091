//! The file's tables, each field with its description.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tier0_core::observe::{MovePolicy, OnProcessDeath, ProtectionMode};
use tier0_core::record::{AutomaticMode, DatastoreKind};
use tier0_core::words::{DatastoreName, Region, Site, StackName};

use crate::describe::{About, Count, Fallback, Kind, Role, Setting, Table, Unit, settings};
use crate::limits::Limits;
use crate::secret::SecretSource;

const AGENTS: &[Role] = &[Role::Agent];
const ORCHESTRATORS: &[Role] = &[Role::Orchestrator];
const BACKENDS: &[Role] = &[Role::Backend];
const AGENTS_AND_ORCHESTRATORS: &[Role] = &[Role::Agent, Role::Orchestrator];
const AGENTS_AND_BACKENDS: &[Role] = &[Role::Agent, Role::Backend];

const fn setting(kind: Kind, examples: &'static [&'static str]) -> Setting {
    Setting::required(kind, examples)
}

const fn many(key: &'static str, examples: usize, fields: &'static [crate::Field]) -> About {
    About::Table(Table { count: Count::Many { key, examples }, fields })
}

/// Whether agents probe what clients meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probes {
    /// They do.
    On,
    /// They do not.
    Off,
}

settings! {
    /// A whole stack.
    pub struct Stack {
        /// What belongs to the stack as a whole.
        pub stack: StackSettings => About::Table(Table {
            count: Count::One,
            fields: StackSettings::FIELDS,
        }),
        /// One per site that runs an orchestrator: one, or an odd number of them that share an etcd
        /// cluster. The one named first acts, as long as the others hear it.
        pub orchestrators: Vec<OrchestratorSettings> as "orchestrator"
            => many("site", 1, OrchestratorSettings::FIELDS),
        /// Where several orchestrators keep the authority record and the journal together. Without
        /// it the only one keeps them in its state directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub store: Option<StoreSettings> => About::Table(Table {
            count: Count::Optional { example_of: &[0] },
            fields: StoreSettings::FIELDS,
        }),
        /// One per region.
        pub agents: Vec<AgentSettings> as "agent" => many("region", 2, AgentSettings::FIELDS),
        /// What moves: one per PostgreSQL cluster or Redis replication group.
        pub datastores: Vec<DatastoreSettings> as "datastore"
            => many("name", 2, DatastoreSettings::FIELDS),
        /// What stands between clients and a datastore and is moved with it, if anything does.
        #[serde(default)]
        pub routes: Vec<RouteSettings> as "route" => many("address", 2, RouteSettings::FIELDS),
        /// The reference backend, where it runs.
        #[serde(default)]
        pub telemetry: Vec<TelemetrySettings> as "telemetry"
            => many("region", 2, TelemetrySettings::FIELDS),
        /// Limits and time-outs.
        #[serde(default)]
        pub limits: Limits => About::Table(Table {
            count: Count::Optional { example_of: &[0] },
            fields: Limits::FIELDS,
        }),
    }
}

settings! {
    /// What belongs to the stack as a whole.
    pub struct StackSettings {
        /// Its name.
        pub name: StackName => About::Setting(setting(Kind::Name("stack"), &[r#""shop""#])),
        /// The two regions that hold data, the writer's home first.
        pub regions: Vec<Region> => About::Setting(
            setting(Kind::Names("region"), &[r#"["region1", "region2"]"#])
                .agrees(&["two different regions"])
        ),
        /// Whether the writer may be moved without being asked: `armed` moves it, `observe` says
        /// what would have been done, `off` says that nothing is done. Read when the very first
        /// record is made; from then on `tier0 automatic` changes it.
        #[serde(default = "observe")]
        pub automatic: AutomaticMode => About::Setting(
            setting(Kind::Choice(&["armed", "observe", "off"]), &[r#""observe""#])
                .or(Fallback::Value(r#""observe""#))
                .read_by(ORCHESTRATORS)
        ),
        /// Whether agents probe ten times a second what clients meet on every way, for the account of
        /// availability. `off` leaves it empty.
        #[serde(default = "on")]
        pub probes: Probes => About::Setting(
            setting(Kind::Choice(&["on", "off"]), &[r#""on""#])
                .or(Fallback::Value(r#""on""#))
                .read_by(AGENTS)
        ),
        /// The token with which roles authenticate to each other.
        pub role_token_file: SecretSource => About::Setting(
            setting(Kind::Secret, &[r#""/etc/tier0/role.token""#]).read_by(AGENTS_AND_ORCHESTRATORS)
        ),
    }
}

settings! {
    /// One orchestrator.
    pub struct OrchestratorSettings {
        /// Where it runs.
        pub site: Site => About::Setting(
            setting(Kind::Name("site"), &[r#""witness""#]).read_by(ORCHESTRATORS)
        ),
        /// Where its API listens.
        pub listen: SocketAddr => About::Setting(
            setting(Kind::Address, &[r#""10.0.3.10:8003""#])
                .read_by(ORCHESTRATORS)
                .agrees(&["no other server of the stack has this address"])
        ),
        /// More addresses its API listens on.
        #[serde(default)]
        pub also_listen: Vec<SocketAddr> => About::Setting(
            setting(Kind::Addresses, &[r#"["127.0.0.1:8003"]"#])
                .or(Fallback::Value("[]"))
                .read_by(ORCHESTRATORS)
        ),
        /// Where the account of availability is kept, and without `store` the authority record and
        /// the journal.
        pub state_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/var/lib/tier0/orchestrator""#]).read_by(ORCHESTRATORS)
        ),
        /// The token that may operate.
        pub operate_token_file: SecretSource => About::Setting(
            setting(Kind::Secret, &[r#""credential:operate-token""#]).read_by(ORCHESTRATORS)
        ),
        /// The token that may also accept loss.
        pub accept_loss_token_file: SecretSource => About::Setting(
            setting(Kind::Secret, &[r#""credential:accept-loss-token""#]).read_by(ORCHESTRATORS)
        ),
        /// Whether reading needs no token when asked from loopback.
        #[serde(default = "yes")]
        pub open_reads_on_loopback: bool => About::Setting(
            setting(Kind::Flag, &["true"]).or(Fallback::Value("true")).read_by(ORCHESTRATORS)
        ),
    }
}

settings! {
    /// A store that orchestrators share.
    pub struct StoreSettings {
        /// The client addresses of the members of an etcd cluster, one per site. An orchestrator
        /// asks the one on its own address first.
        pub etcd: Vec<SocketAddr> => About::Setting(
            setting(Kind::Addresses, &[
                r#"["10.0.3.10:2379", "10.0.1.10:2379", "10.0.2.10:2379"]"#,
            ])
            .read_by(ORCHESTRATORS)
            .agrees(&["at least one"])
        ),
        /// The user of etcd as whom an orchestrator reads and writes below `/tier0/`.
        pub user: Option<String> => About::Setting(
            setting(Kind::Text, &[r#""tier0""#])
                .or(Fallback::Nothing("etcd lets everybody in"))
                .read_by(ORCHESTRATORS)
        ),
        /// That user's password.
        pub password_file: Option<SecretSource> => About::Setting(
            setting(Kind::Secret, &[r#""credential:etcd-password""#])
                .or(Fallback::Nothing("etcd lets everybody in"))
                .read_by(ORCHESTRATORS)
                .agrees(&["only together with `user`"])
        ),
    }
}

fn observe() -> AutomaticMode {
    AutomaticMode::Observe
}

fn on() -> Probes {
    Probes::On
}

fn yes() -> bool {
    true
}

settings! {
    /// One agent.
    pub struct AgentSettings {
        /// The region it looks after.
        pub region: Region => About::Setting(
            setting(Kind::Name("region"), &[r#""region1""#, r#""region2""#])
                .read_by(AGENTS_AND_ORCHESTRATORS)
                .agrees(&["each of `stack.regions` has one agent"])
        ),
        /// Where it listens for orchestrators and peer agents.
        pub listen: SocketAddr => About::Setting(
            setting(Kind::Address, &[r#""10.0.1.10:8004""#, r#""10.0.2.10:8004""#])
                .read_by(AGENTS_AND_ORCHESTRATORS)
                .agrees(&["no other server of the stack has this address"])
        ),
        /// Where it keeps what it heard and obeyed.
        pub state_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/var/lib/tier0/agent""#]).read_by(AGENTS)
        ),
        /// Where systemd's enabled units are. `tier0 check` fails while one of them would start a
        /// server of this region behind the agent's back.
        #[serde(default = "units")]
        pub unit_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/etc/systemd/system""#, r#""/etc/systemd/system""#])
                .or(Fallback::Value(r#""/etc/systemd/system""#))
                .read_by(AGENTS)
        ),
    }
}

settings! {
    /// One datastore.
    pub struct DatastoreSettings {
        /// Its name.
        pub name: DatastoreName => About::Setting(
            setting(Kind::Name("datastore"), &[r#""main""#, r#""cache""#])
                .agrees(&["no two datastores have one name"])
        ),
        /// Its kind.
        pub kind: DatastoreKind => About::Setting(
            setting(Kind::Choice(&["postgres", "redis"]), &[r#""postgres""#, r#""redis""#])
                .agrees(&["the table `datastore.postgres` or `datastore.redis` of this kind is there"])
        ),
        /// What its failure to move means for the others: with `required` the stack does not move
        /// without it, with `follow` the others move and it is brought along as well as it can be.
        pub policy: Option<MovePolicy> => About::Setting(
            setting(Kind::Choice(&["required", "follow"]), &[r#""required""#, r#""follow""#])
                .or(Fallback::Nothing("`required` for PostgreSQL, `follow` for Redis"))
                .read_by(ORCHESTRATORS)
        ),
        /// What follows when the process of the writer's server ends and its region lives on:
        /// with `failover` the stack moves, if it may be moved without being asked, with `restart`
        /// the server is started again where it is.
        pub on_process_death: Option<OnProcessDeath> => About::Setting(
            setting(Kind::Choice(&["failover", "restart"]), &[r#""failover""#, r#""restart""#])
                .or(Fallback::Nothing("`failover` for PostgreSQL, `restart` for Redis"))
                .read_by(ORCHESTRATORS)
        ),
        /// One node per region.
        pub nodes: Vec<NodeSettings> as "node" => many("region", 2, NodeSettings::FIELDS),
        /// What only PostgreSQL has.
        pub postgres: Option<PostgresSettings> => About::Table(Table {
            count: Count::Optional { example_of: &[0] },
            fields: PostgresSettings::FIELDS,
        }),
        /// What only Redis has.
        pub redis: Option<RedisSettings> => About::Table(Table {
            count: Count::Optional { example_of: &[1] },
            fields: RedisSettings::FIELDS,
        }),
    }
}

settings! {
    /// One node.
    pub struct NodeSettings {
        /// Its region.
        pub region: Region => About::Setting(
            setting(Kind::Name("region"), &[
                r#""region1""#, r#""region2""#, r#""region1""#, r#""region2""#,
            ])
            .agrees(&["each of `stack.regions` has one node of every datastore"])
        ),
        /// The address as the other region and the clients see it.
        pub address: SocketAddr => About::Setting(
            setting(Kind::Address, &[
                r#""10.0.1.10:5432""#,
                r#""10.0.2.10:5432""#,
                r#""10.0.1.10:6379""#,
                r#""10.0.2.10:6379""#,
            ])
            .agrees(&["no other server of the stack has this address"])
        ),
        /// Its data directory.
        pub data_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[
                r#""/var/lib/postgresql/17/main""#,
                r#""/var/lib/postgresql/17/main""#,
                r#""/var/lib/redis""#,
            ])
            .read_by(AGENTS)
            .agrees(&["no other node in the region has it"])
        ),
        /// Its own part of the WAL archive (PostgreSQL).
        pub archive_directory: Option<PathBuf> => About::Setting(
            setting(Kind::Path, &[
                r#""/var/lib/postgresql/archive""#, r#""/var/lib/postgresql/archive""#, "",
            ])
            .or(Fallback::Nothing("no archive, which only Redis can do without"))
            .read_by(AGENTS)
            .agrees(&["PostgreSQL needs one"])
        ),
        /// Its server log.
        pub log_file: PathBuf => About::Setting(
            setting(Kind::Path, &[
                r#""/var/log/postgresql/main.log""#,
                r#""/var/log/postgresql/main.log""#,
                r#""/var/log/redis/cache.log""#,
            ])
            .read_by(AGENTS)
        ),
        /// A file that every good backup touches; its modification time is the newest one's.
        pub backup_stamp_file: Option<PathBuf> => About::Setting(
            setting(Kind::Path, &[r#""/var/backups/main.done""#, "", "", ""])
                .or(Fallback::Nothing("the age of backups is not looked at"))
                .read_by(AGENTS)
                .agrees(&["`limits.backup_age_most_hours` is how old it may become"])
        ),
        /// A program that prints when the newest good backup ended, in seconds since 1970, run once a
        /// minute without arguments; instead of `backup_stamp_file`.
        pub backup_command: Option<PathBuf> => About::Setting(
            setting(Kind::Path, &["", r#""/usr/local/bin/newest-backup""#, "", ""])
                .or(Fallback::Nothing("`backup_stamp_file`, if that is there"))
                .read_by(AGENTS)
        ),
        /// Only there for a PostgreSQL server that ran before tier0 did; `tier0 init` writes it.
        /// Its files stay its operator's.
        pub adopted: Option<AdoptedSettings> => About::Table(Table {
            count: Count::Optional { example_of: &[0, 1] },
            fields: AdoptedSettings::FIELDS,
        }),
    }
}

settings! {
    /// Where an adopted PostgreSQL server has what a server that tier0 made has elsewhere.
    pub struct AdoptedSettings {
        /// The directory of its `postgresql.conf`, which gets an include at its end.
        pub config_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/etc/postgresql/17/main""#]).read_by(AGENTS)
        ),
        /// The directory of its Unix socket.
        pub socket_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/var/run/postgresql""#]).read_by(AGENTS)
        ),
    }
}

settings! {
    /// What only PostgreSQL has.
    pub struct PostgresSettings {
        /// Where `postgres`, `pg_basebackup`, `pg_rewind` and `pg_controldata` are.
        pub bin_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/usr/lib/postgresql/17/bin""#]).read_by(AGENTS)
        ),
        /// The agent's own role: superuser, by the Unix socket in the data directory's `socket`
        /// neighbour, peer authentication.
        pub admin_user: String => About::Setting(
            setting(Kind::Text, &[r#""postgres""#]).read_by(AGENTS)
        ),
        /// The role with which standbys stream.
        pub replication_user: String => About::Setting(
            setting(Kind::Text, &[r#""replication_user""#]).read_by(AGENTS)
        ),
        /// Its password.
        pub replication_password_file: SecretSource => About::Setting(
            setting(Kind::Secret, &[r#""/etc/tier0/replication.password""#]).read_by(AGENTS)
        ),
        /// The database of the application.
        pub database: String => About::Setting(
            setting(Kind::Text, &[r#""shop""#]).read_by(AGENTS_AND_BACKENDS)
        ),
        /// The application's role.
        pub application_user: String => About::Setting(
            setting(Kind::Text, &[r#""shop""#]).read_by(AGENTS_AND_BACKENDS)
        ),
        /// Its password.
        pub application_password_file: SecretSource => About::Setting(
            setting(Kind::Secret, &[r#""env:SHOP_PASSWORD""#]).read_by(AGENTS_AND_BACKENDS)
        ),
        /// Networks from which the application may connect, for the generated `pg_hba.conf`.
        #[serde(default = "loopback")]
        pub client_networks: Vec<String> => About::Setting(
            setting(Kind::Networks, &[r#"["10.1.0.0/16", "10.2.0.0/16"]"#])
                .or(Fallback::Value(r#"["127.0.0.0/8"]"#))
                .read_by(AGENTS)
        ),
        /// What commits do while no standby is proven to hold them: with `max-availability` they
        /// wait for `limits.stall_ms` and go on with a single copy, with `max-protection` they
        /// wait until a standby has joined or an operator says `tier0 expose`, also after a move.
        #[serde(default)]
        pub protection: ProtectionMode => About::Setting(
            setting(Kind::Choice(&["max-availability", "max-protection"]), &[
                r#""max-availability""#,
            ])
            .or(Fallback::Value(r#""max-availability""#))
            .read_by(AGENTS_AND_ORCHESTRATORS)
        ),
        /// Settings for `postgresql.conf`, the same on every node.
        #[serde(default)]
        pub parameters: BTreeMap<String, String> => About::Setting(
            setting(Kind::TextByName, &[r#"{ max_connections = "200", max_wal_size = "4GB" }"#])
                .or(Fallback::Value("{}"))
                .read_by(AGENTS)
                .agrees(&["no password stands in it"])
        ),
    }
}

settings! {
    /// What only Redis has.
    pub struct RedisSettings {
        /// The `redis-server` binary.
        pub server_binary: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/usr/bin/redis-server""#]).read_by(AGENTS)
        ),
        /// The password.
        pub password_file: SecretSource => About::Setting(
            setting(Kind::Secret, &[r#""/etc/tier0/redis.password""#]).read_by(AGENTS_AND_BACKENDS)
        ),
        /// The name under which Sentinels know it.
        pub master_name: String => About::Setting(
            setting(Kind::Text, &[r#""cache""#]).read_by(AGENTS)
        ),
        /// Sentinel's `down-after-milliseconds`, which bounds how long writes may be held. With
        /// less than 3 s Sentinel may fail back right after a switch; with more, it takes longer
        /// to notice a dead Redis where it acts by itself.
        pub down_after_ms: u64 => About::Setting(
            setting(
                Kind::Whole { unit: Unit::Milliseconds, least: 3_000, most: 600_000 },
                &["5000"],
            )
            .read_by(AGENTS_AND_ORCHESTRATORS)
            .agrees(&["at least twice `limits.pause_ms`"])
        ),
        /// How a switch is done: `vote` by a majority vote and a hello, `documented` by
        /// `SENTINEL FAILOVER` after pause, offsets and fence.
        #[serde(default)]
        pub mode: RedisMode => About::Setting(
            setting(Kind::Choice(&["vote", "documented"]), &[r#""vote""#])
                .or(Fallback::Value(r#""vote""#))
                .read_by(AGENTS_AND_ORCHESTRATORS)
        ),
        /// The Sentinels.
        #[serde(default)]
        pub sentinels: Vec<SentinelSettings> as "sentinel"
            => many("site", 3, SentinelSettings::FIELDS),
        /// Lines for `redis.conf`, the same on every node; a key may have several values.
        #[serde(default)]
        pub parameters: BTreeMap<String, Vec<String>> => About::Setting(
            setting(Kind::TextsByName, &[r#"{ appendonly = ["yes"], maxmemory = ["2gb"] }"#])
                .or(Fallback::Value("{}"))
                .read_by(AGENTS)
                .agrees(&["no password stands in it"])
        ),
    }
}

/// How a Redis switch tells Sentinel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisMode {
    /// By a majority vote and a hello.
    #[default]
    Vote,
    /// By `SENTINEL FAILOVER`, after pause, offsets and fence.
    Documented,
}

settings! {
    /// One Sentinel.
    pub struct SentinelSettings {
        /// Where it runs.
        pub site: Site => About::Setting(
            setting(Kind::Name("site"), &[r#""region1""#, r#""region2""#, r#""witness""#])
                .read_by(AGENTS)
        ),
        /// Its address.
        pub address: SocketAddr => About::Setting(
            setting(Kind::Address, &[
                r#""10.0.1.10:26379""#, r#""10.0.2.10:26379""#, r#""10.0.3.10:26379""#,
            ])
            .read_by(AGENTS)
            .agrees(&["no two Sentinels of a datastore have one address"])
        ),
    }
}

settings! {
    /// One route beside the clients of one region: a PgBouncer or a HAProxy, whose own file is its
    /// operator's, or tier0's own router.
    pub struct RouteSettings {
        /// Its name; the routes of two regions may have one name.
        pub name: DatastoreName => About::Setting(
            setting(Kind::Name("route"), &[r#""pool""#])
                .read_by(AGENTS_AND_ORCHESTRATORS)
                .agrees(&["no datastore, and no other route of the region, has this name"])
        ),
        /// Its region.
        pub region: Region => About::Setting(
            setting(Kind::Name("region"), &[r#""region1""#, r#""region2""#])
                .read_by(AGENTS_AND_ORCHESTRATORS)
                .agrees(&["one of `stack.regions`"])
        ),
        /// Its kind.
        pub kind: RouteKind => About::Setting(
            setting(Kind::Choice(&["pgbouncer", "haproxy", "proxy"]), &[r#""pgbouncer""#, r#""proxy""#])
                .read_by(AGENTS)
        ),
        /// The datastore whose clients it serves.
        pub datastore: DatastoreName => About::Setting(
            setting(Kind::Name("datastore"), &[r#""main""#])
                .read_by(AGENTS_AND_ORCHESTRATORS)
                .agrees(&[
                    "a datastore; for `pgbouncer` one of kind `postgres`, whose database has a plain \
                     name",
                ])
        ),
        /// Where clients connect.
        pub address: SocketAddr => About::Setting(
            setting(Kind::Address, &[r#""10.0.1.10:6432""#, r#""10.0.2.10:6432""#])
                .read_by(AGENTS)
                .agrees(&["no other server of the stack has this address"])
        ),
        /// Where clients connect that only read: to the node in the route's own region, be it the
        /// writer or a replica, and to another region's where that one takes no connection.
        pub read_address: Option<SocketAddr> => About::Setting(
            setting(Kind::Address, &["", r#""10.0.2.10:6433""#])
                .or(Fallback::Nothing("no read port"))
                .read_by(AGENTS)
                .agrees(&[
                    "only where `kind` is `proxy`",
                    "no other server of the stack has this address",
                ])
        ),
        /// The directory of its Unix socket, by which the agent tells it what to do. A HAProxy's has
        /// the route's name and region in it, as `stats socket /run/haproxy/pool.region1.sock`.
        pub socket_directory: PathBuf => About::Setting(
            setting(Kind::Path, &[r#""/var/run/postgresql""#, r#""/run/tier0-router""#])
                .read_by(AGENTS)
        ),
        /// The user of PgBouncer's admin console. `pgbouncer` needs no password where the agent runs
        /// as the same user as PgBouncer; another must be in `admin_users` and needs none by
        /// `auth_type`.
        #[serde(default = "pgbouncer")]
        pub admin_user: String => About::Setting(
            setting(Kind::Text, &[r#""pgbouncer""#])
                .or(Fallback::Value(r#""pgbouncer""#))
                .read_by(AGENTS)
        ),
        /// What sessions through it may read where nobody says any more that its region is the writer
        /// (the agent's lease is over). `strict`: nothing, no byte passes, also where the agent is
        /// dead; but then an agent that is away for longer than `lease_ms` holds up clients of a healthy
        /// writer in its region. `bounded`: until the agent holds the server.
        #[serde(default)]
        pub reads: RouteReads => About::Setting(
            setting(Kind::Choice(&["bounded", "strict"]), &[r#""bounded""#])
                .or(Fallback::Value(r#""bounded""#))
                .read_by(AGENTS)
                .agrees(&["`strict` only where `kind` is `proxy`"])
        ),
        /// The file that says where it points. With PgBouncer the agent writes it: the line of the
        /// datastore's database, which `pgbouncer.ini` includes below `[databases]`. With HAProxy it
        /// does too, and nobody else reads it. The router writes its own.
        pub pointer_file: PathBuf => About::Setting(
            setting(Kind::Path, &[
                r#""/etc/pgbouncer/tier0.databases.ini""#,
                r#""/var/lib/tier0-router/pool.pointer""#,
            ])
            .read_by(AGENTS)
        ),
        /// What is sent before the first byte of a client: nothing, or who it is, by the PROXY protocol.
        /// PostgreSQL and Redis do not understand it. HAProxy does with `accept-proxy`, and PgBouncer
        /// since 1.24.
        #[serde(default)]
        pub proxy_protocol: ProxyProtocol => About::Setting(
            setting(Kind::Choice(&["off", "v2"]), &[r#""off""#, r#""v2""#])
                .or(Fallback::Value(r#""off""#))
                .read_by(AGENTS)
                .agrees(&["`v2` only where `kind` is `proxy` and every region has a front"])
        ),
        /// What the router leads clients to instead of the node in a region: a HAProxy or a PgBouncer of
        /// your own that stands before that node alone.
        #[serde(default)]
        pub fronts: BTreeMap<Region, SocketAddr> => About::Setting(
            setting(Kind::AddressByRegion, &[
                "", r#"{ region1 = "10.0.1.10:7432", region2 = "10.0.2.10:7432" }"#,
            ])
            .or(Fallback::Value("{}"))
            .read_by(AGENTS)
            .agrees(&["only where `kind` is `proxy`", "regions of the stack", "no node's own address"])
        ),
    }
}

/// What a route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// PgBouncer, with transaction pooling.
    Pgbouncer,
    /// HAProxy in TCP mode, told by its runtime socket: to a datastore of any kind.
    Haproxy,
    /// `tier0 router`: plain TCP, to a datastore of any kind.
    Proxy,
}

/// What sessions through a route may read when the lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteReads {
    /// What the server answers until it is held.
    #[default]
    Bounded,
    /// Nothing.
    Strict,
}

/// Whether a server is told who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// It is not: it sees the router.
    #[default]
    Off,
    /// By the header of version 2.
    V2,
}

settings! {
    /// One instance of the reference backend.
    pub struct TelemetrySettings {
        /// Its region.
        pub region: Region => About::Setting(
            setting(Kind::Name("region"), &[r#""region1""#, r#""region2""#])
                .read_by(BACKENDS)
                .agrees(&["one of `stack.regions`"])
        ),
        /// Where it listens.
        pub listen: SocketAddr => About::Setting(
            setting(Kind::Address, &[r#""10.0.1.10:8000""#, r#""10.0.2.10:8000""#])
                .read_by(BACKENDS)
                .agrees(&["no other server of the stack has this address"])
        ),
        /// More addresses it listens on.
        #[serde(default)]
        pub also_listen: Vec<SocketAddr> => About::Setting(
            setting(Kind::Addresses, &[r#"["127.0.0.1:8000"]"#])
                .or(Fallback::Value("[]"))
                .read_by(BACKENDS)
        ),
        /// The PostgreSQL datastore it writes to.
        pub postgres: DatastoreName => About::Setting(
            setting(Kind::Name("datastore"), &[r#""main""#])
                .read_by(BACKENDS)
                .agrees(&["a datastore of kind `postgres`"])
        ),
        /// Hours after which a reading is deleted; 0 keeps all. Whole days go at once, when the last
        /// reading of the day is so old.
        #[serde(default)]
        pub retention_hours: u64 => About::Setting(
            setting(
                Kind::Whole { unit: Unit::Hours, least: 0, most: 876_600 },
                &["0", ""],
            )
            .or(Fallback::Value("0"))
            .read_by(BACKENDS)
        ),
        /// The Redis datastore it caches in.
        pub redis: DatastoreName => About::Setting(
            setting(Kind::Name("datastore"), &[r#""cache""#])
                .read_by(BACKENDS)
                .agrees(&["a datastore of kind `redis`"])
        ),
    }
}

fn pgbouncer() -> String {
    "pgbouncer".to_owned()
}

fn units() -> PathBuf {
    PathBuf::from("/etc/systemd/system")
}

fn loopback() -> Vec<String> {
    vec!["127.0.0.0/8".to_owned()]
}
