//! One node's adapter, whatever its kind; a route's too, which is looked after in the same way.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tier0_config::{DatastoreSettings, NodeSettings, RouteSettings, Stack};
use tier0_core::observe::NodeView;
use tier0_core::order::{Order, Outcome};
use tier0_core::record::DatastoreKind;
use tier0_core::words::{Epoch, NodeId, Region};
use tier0_postgres::{ClientNetwork, PostgresNode, PostgresNodeSettings};
use tier0_redis::{ProbeDeadlines, RedisNode, RedisNodeSettings};
use tier0_route::{Client, Route};

/// The adapter of one node.
pub enum Adapter {
    /// PostgreSQL.
    Postgres(PostgresNode),
    /// Redis.
    Redis(Box<RedisNode>),
    /// A route.
    Route(Route),
}

impl Adapter {
    /// The adapter of a datastore's node in a region. Reads secret files; touches no server.
    pub fn open(datastore: &DatastoreSettings, region: &Region) -> anyhow::Result<Adapter> {
        let id = NodeId::new(datastore.name.clone(), region.clone());
        let nodes: BTreeMap<NodeId, NodeSettings> = datastore
            .nodes
            .iter()
            .map(|node| (NodeId::new(datastore.name.clone(), node.region.clone()), node.clone()))
            .collect();
        match datastore.kind {
            DatastoreKind::Postgres => {
                let postgres = datastore
                    .postgres
                    .clone()
                    .ok_or_else(|| anyhow!("datastore {} lacks its settings", datastore.name))?;
                let replication_password = postgres
                    .replication_password_file
                    .read()
                    .context("read the replication password")?;
                let networks = postgres
                    .client_networks
                    .iter()
                    .map(|network| network.parse())
                    .collect::<Result<Vec<ClientNetwork>, _>>()
                    .context("read client_networks")?;
                let mut settings =
                    PostgresNodeSettings::new(id.clone(), nodes, postgres, replication_password);
                settings.client_networks = networks;
                let node = PostgresNode::new(settings).with_context(|| format!("open {id}"))?;
                Ok(Adapter::Postgres(node))
            }
            DatastoreKind::Redis => {
                let redis = datastore
                    .redis
                    .clone()
                    .ok_or_else(|| anyhow!("datastore {} lacks its settings", datastore.name))?;
                let password = redis.password_file.read().context("read the Redis password")?;
                let deadlines = ProbeDeadlines::default();
                let settings =
                    RedisNodeSettings { id: id.clone(), nodes, redis, password, deadlines };
                let node = RedisNode::new(settings)
                    .ok_or_else(|| anyhow!("{id} is not among the nodes of its datastore"))?;
                Ok(Adapter::Redis(Box::new(node)))
            }
        }
    }

    /// The adapter of a route. Reads secret files; touches nothing else.
    pub fn open_route(stack: &Stack, route: &RouteSettings) -> anyhow::Result<Adapter> {
        let id = route.id();
        let datastore = stack
            .datastore(&route.datastore)
            .ok_or_else(|| anyhow!("route {id}: there is no datastore {}", route.datastore))?;
        let client = match (&datastore.postgres, &datastore.redis) {
            (Some(postgres), _) => Client::Postgres {
                database: postgres.database.clone(),
                user: postgres.application_user.clone(),
                password: postgres
                    .application_password_file
                    .read()
                    .context("read the application's password")?,
            },
            (None, Some(redis)) => Client::Redis {
                password: redis.password_file.read().context("read the Redis password")?,
            },
            (None, None) => return Err(anyhow!("datastore {} lacks its settings", datastore.name)),
        };
        let nodes = datastore.nodes.iter();
        let nodes = nodes.map(|node| (node.region.clone(), node.address)).collect();
        let settings = tier0_route::RouteSettings { route: route.clone(), nodes, client };
        Ok(Adapter::Route(Route::new(settings)))
    }

    /// Look at the server once.
    pub async fn observe(&self) -> NodeView {
        match self {
            Adapter::Postgres(node) => NodeView::Postgres(node.observe().await),
            Adapter::Redis(node) => NodeView::Redis(node.observe().await),
            Adapter::Route(route) => NodeView::Route(route.observe().await),
        }
    }

    /// Probe what a look does not show, for ever; the looks say what came of it.
    pub async fn keep_probing(&self) {
        match self {
            Adapter::Postgres(node) => node.keep_probing().await,
            // A look at Redis is a command to its one thread already.
            Adapter::Redis(_) => {}
            Adapter::Route(route) => route.keep_watch().await,
        }
    }

    /// Let no byte out of the server, nor in, until it is released.
    pub fn hold(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.hold(),
            Adapter::Redis(node) => node.hold(),
            // It holds nobody back whose server is held.
            Adapter::Route(_) => Ok(()),
        }
    }

    /// Let the held server go on.
    pub fn release(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.release(),
            Adapter::Redis(node) => node.release(),
            Adapter::Route(_) => Ok(()),
        }
    }

    /// End the held server without letting it go on.
    pub fn end_held(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.end_held(),
            Adapter::Redis(node) => node.end_held(),
            Adapter::Route(_) => Ok(()),
        }
    }

    /// Whether an earlier agent was killed while it ended the server, and left it half ended.
    pub fn is_left_ending(&self) -> std::io::Result<bool> {
        match self {
            Adapter::Postgres(node) => node.is_left_ending(),
            Adapter::Redis(_) | Adapter::Route(_) => Ok(false),
        }
    }

    /// Somebody sees to what was left.
    pub fn forget_ending(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.forget_ending(),
            Adapter::Redis(_) | Adapter::Route(_) => Ok(()),
        }
    }

    /// Carry out an order.
    pub async fn perform(
        &self,
        order: &Order,
        limit: Duration,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Outcome {
        match self {
            Adapter::Postgres(node) => node.perform(order, limit, progress).await,
            Adapter::Redis(node) => node.perform(order, limit, progress).await,
            Adapter::Route(route) => route.perform(order, limit).await,
        }
    }

    /// Return when the running server ends; never while there is none.
    pub async fn wait_for_exit(&self) {
        match self {
            Adapter::Postgres(node) => node.wait_for_exit().await,
            Adapter::Redis(node) => node.wait_for_exit().await,
            // What starts it again is not this agent; the next look shows it.
            Adapter::Route(_) => std::future::pending().await,
        }
    }

    /// What is kept up while this node is the writer's: Sentinels name it, and do not act.
    pub async fn keep_as_writer(&self, id: &NodeId) {
        match self {
            Adapter::Postgres(_) | Adapter::Route(_) => {}
            Adapter::Redis(node) => {
                node.take_authority().await;
                node.repair_sentinels(id).await;
            }
        }
    }

    /// Whether it is a route that passes answers on by a lease.
    pub fn is_leased(&self) -> bool {
        matches!(self, Adapter::Route(route) if route.is_leased())
    }

    /// A route may pass answers on for so long from now.
    pub async fn lease(&self, lasting: Duration) {
        if let Adapter::Route(route) = self {
            route.lease(lasting).await;
        }
    }

    /// What is kept up while a route stands: it points at the writer that was named.
    pub async fn keep_pointed(&self, writer: &Region, epoch: Epoch) {
        match self {
            Adapter::Route(route) => route.keep_pointed(writer, epoch).await,
            Adapter::Postgres(_) | Adapter::Redis(_) => {}
        }
    }
}
