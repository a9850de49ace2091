//! One node's adapter, whatever its kind.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tier0_config::{DatastoreSettings, NodeSettings};
use tier0_core::observe::NodeView;
use tier0_core::order::{Order, Outcome};
use tier0_core::record::DatastoreKind;
use tier0_core::words::{NodeId, Region};
use tier0_postgres::{ClientNetwork, PostgresNode, PostgresNodeSettings};
use tier0_redis::{ProbeDeadlines, RedisNode, RedisNodeSettings};

/// The adapter of one node.
pub enum Adapter {
    /// PostgreSQL.
    Postgres(PostgresNode),
    /// Redis.
    Redis(Box<RedisNode>),
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

    /// Look at the server once.
    pub async fn observe(&self) -> NodeView {
        match self {
            Adapter::Postgres(node) => NodeView::Postgres(node.observe().await),
            Adapter::Redis(node) => NodeView::Redis(node.observe().await),
        }
    }

    /// Probe what a look does not show, for ever; the looks say what came of it.
    pub async fn keep_probing(&self) {
        match self {
            Adapter::Postgres(node) => node.keep_probing().await,
            // A look at Redis is a command to its one thread already.
            Adapter::Redis(_) => {}
        }
    }

    /// Let no byte out of the server, nor in, until it is released.
    pub fn hold(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.hold(),
            Adapter::Redis(node) => node.hold(),
        }
    }

    /// Let the held server go on.
    pub fn release(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.release(),
            Adapter::Redis(node) => node.release(),
        }
    }

    /// End the held server without letting it go on.
    pub fn end_held(&self) -> std::io::Result<()> {
        match self {
            Adapter::Postgres(node) => node.end_held(),
            Adapter::Redis(node) => node.end_held(),
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
        }
    }

    /// Return when the running server ends; never while there is none.
    pub async fn wait_for_exit(&self) {
        match self {
            Adapter::Postgres(node) => node.wait_for_exit().await,
            Adapter::Redis(node) => node.wait_for_exit().await,
        }
    }

    /// What is kept up while this node is the writer's: Sentinels name it, and do not act.
    pub async fn keep_as_writer(&self, id: &NodeId) {
        match self {
            Adapter::Postgres(_) => {}
            Adapter::Redis(node) => {
                node.take_authority().await;
                node.repair_sentinels(id).await;
            }
        }
    }
}
