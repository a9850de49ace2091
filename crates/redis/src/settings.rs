//! What an agent must say to look after one Redis node. Nothing is read from files here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tier0_config::{NodeSettings, RedisSettings, Secret};
use tier0_core::words::NodeId;

/// One Redis node and what it has to know of the others.
#[derive(Debug, Clone)]
pub struct RedisNodeSettings {
    /// The node this adapter looks after. Must be in `nodes`.
    pub id: NodeId,
    /// Every node of the datastore.
    pub nodes: BTreeMap<NodeId, NodeSettings>,
    /// What only Redis has.
    pub redis: RedisSettings,
    /// The password of server and replication.
    pub password: Secret,
    /// How long looking may take.
    pub deadlines: ProbeDeadlines,
}

/// How long one question may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeDeadlines {
    /// The whole look at the node. A server that has not answered by then is silent.
    pub observe: Duration,
    /// One question to one Sentinel. Must cover a round trip to the farthest region, twice.
    pub sentinel: Duration,
    /// How old the cached answers of Sentinels may become.
    pub sentinel_refresh: Duration,
    /// One question to the node or its upstream within an order.
    pub answer: Duration,
}

impl Default for ProbeDeadlines {
    fn default() -> Self {
        ProbeDeadlines {
            observe: Duration::from_millis(300),
            sentinel: Duration::from_millis(500),
            sentinel_refresh: Duration::from_secs(1),
            answer: Duration::from_secs(1),
        }
    }
}

/// Where the parts of one node are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub address: SocketAddr,
    pub directory: PathBuf,
    pub log_file: PathBuf,
}

impl Place {
    pub fn of(node: &NodeSettings) -> Self {
        Place {
            address: node.address,
            directory: node.data_directory.clone(),
            log_file: node.log_file.clone(),
        }
    }

    /// The file the server is started with. Ours alone: rewritten before every start.
    pub fn conf_file(&self) -> PathBuf {
        self.directory.join("redis.conf")
    }

    /// The file the server writes its process id to.
    pub fn pid_file(&self) -> PathBuf {
        self.directory.join("redis.pid")
    }
}
