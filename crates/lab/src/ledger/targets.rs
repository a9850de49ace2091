//! What the writers and the checker write to and read from, as a client of the stack knows it:
//! a list of hosts, or a list of Sentinels. Nothing here knows which side is the writer.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tier0_config::{RouteKind, Secret, Stack};

/// Everything that traffic goes to.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// PostgreSQL datastores.
    pub postgres: Vec<PostgresTarget>,
    /// Redis datastores.
    pub redis: Vec<RedisTarget>,
}

/// A PostgreSQL datastore.
#[derive(Debug, Clone)]
pub struct PostgresTarget {
    /// Its name.
    pub name: String,
    /// Where a server may be.
    pub hosts: Vec<SocketAddr>,
    /// The PgBouncers before it.
    pub pools: Vec<SocketAddr>,
    /// The routers' ports for it.
    pub routers: Vec<SocketAddr>,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// A Redis datastore.
#[derive(Debug, Clone)]
pub struct RedisTarget {
    /// Its name.
    pub name: String,
    /// Where a server may be.
    pub servers: Vec<SocketAddr>,
    /// How the master is found.
    pub source: RedisSource,
    /// The routers' ports for it.
    pub routers: Vec<SocketAddr>,
    /// The password, if it has one.
    pub password: Option<Secret>,
}

/// How clients find a Redis master.
#[derive(Debug, Clone)]
pub enum RedisSource {
    /// By asking Sentinels.
    Sentinels {
        /// The name under which they know it.
        master_name: String,
        /// Where they are.
        sentinels: Vec<SocketAddr>,
    },
    /// By asking each server for its role.
    Roles,
}

impl Targets {
    /// Every datastore of a stack.
    pub fn of(stack: &Stack) -> Result<Targets> {
        let mut targets = Targets::default();
        for datastore in &stack.datastores {
            let hosts: Vec<SocketAddr> = datastore.nodes.iter().map(|node| node.address).collect();
            let routes = |kind: RouteKind| {
                let routes = stack.routes.iter();
                let own = routes.filter(|one| one.datastore == datastore.name && one.kind == kind);
                own.map(|route| route.address).collect()
            };
            if let Some(postgres) = &datastore.postgres {
                targets.postgres.push(PostgresTarget {
                    name: datastore.name.to_string(),
                    hosts,
                    pools: routes(RouteKind::Pgbouncer),
                    routers: routes(RouteKind::Proxy),
                    database: postgres.database.clone(),
                    user: postgres.application_user.clone(),
                    password: postgres.application_password_file.read()?,
                });
            } else if let Some(redis) = &datastore.redis {
                targets.redis.push(RedisTarget {
                    name: datastore.name.to_string(),
                    servers: hosts,
                    source: RedisSource::Sentinels {
                        master_name: redis.master_name.clone(),
                        sentinels: redis.sentinels.iter().map(|one| one.address).collect(),
                    },
                    routers: routes(RouteKind::Proxy),
                    password: Some(redis.password_file.read()?),
                });
            }
        }
        Ok(targets)
    }

    /// The PostgreSQL datastore of this name.
    pub fn find_postgres(&self, name: &str) -> Result<&PostgresTarget> {
        self.postgres
            .iter()
            .find(|target| target.name == name)
            .with_context(|| format!("the ledger names a PostgreSQL datastore {name}"))
    }

    /// The Redis datastore of this name.
    pub fn find_redis(&self, name: &str) -> Result<&RedisTarget> {
        self.redis
            .iter()
            .find(|target| target.name == name)
            .with_context(|| format!("the ledger names a Redis datastore {name}"))
    }
}
