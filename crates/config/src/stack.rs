//! A stack: loading it, writing it, and finding things in it.

use std::path::Path;

use tier0_core::observe::{
    Announce, DatastoreShape, MovePolicy, OnProcessDeath, ProtectionMode, Shape,
};
use tier0_core::record::DatastoreKind;
use tier0_core::route::RouteShape;
use tier0_core::words::{DatastoreName, NodeId, Region};

use crate::check;
use crate::problem::ConfigError;
use crate::settings::{
    AgentSettings, DatastoreSettings, NodeSettings, RedisMode, RouteSettings, Stack,
};

impl Stack {
    /// Read and check a file.
    pub fn load(path: &Path) -> Result<Stack, ConfigError> {
        let bytes = std::fs::read(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        check::check(&bytes)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// The file's text for this stack.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Every relation between settings that does not hold, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        crate::relations::broken(self).into_iter().map(|broken| broken.sentence).collect()
    }

    /// The shape that decisions need.
    pub fn shape(&self) -> Shape {
        let datastores = self
            .datastores
            .iter()
            .map(|datastore| {
                let addresses = datastore
                    .nodes
                    .iter()
                    .map(|node| (node.region.clone(), node.address.to_string()))
                    .collect();
                let announce = match datastore.redis.as_ref().map(|redis| redis.mode) {
                    Some(RedisMode::Documented) => Announce::Documented,
                    Some(RedisMode::Vote) | None => Announce::Vote,
                };
                let shape = DatastoreShape {
                    kind: datastore.kind,
                    policy: datastore.move_policy(),
                    addresses,
                    announce,
                    on_process_death: datastore.on_process_death(),
                    protection: datastore.protection(),
                };
                (datastore.name.clone(), shape)
            })
            .collect();
        let routes = self
            .routes
            .iter()
            .map(|route| (route.id(), RouteShape { datastore: route.datastore.clone() }))
            .collect();
        Shape { regions: self.stack.regions.clone(), datastores, routes }
    }

    /// The settings of one datastore.
    pub fn datastore(&self, name: &DatastoreName) -> Option<&DatastoreSettings> {
        self.datastores.iter().find(|datastore| datastore.name == *name)
    }

    /// The settings of one node.
    pub fn node(&self, id: &NodeId) -> Option<&NodeSettings> {
        self.datastore(id.datastore())?.node(id.region())
    }

    /// The agent of one region.
    pub fn agent(&self, region: &Region) -> Option<&AgentSettings> {
        self.agents.iter().find(|agent| agent.region == *region)
    }
}

impl RouteSettings {
    /// Its id, `name.region`.
    pub fn id(&self) -> NodeId {
        NodeId::new(self.name.clone(), self.region.clone())
    }
}

impl DatastoreSettings {
    /// The policy, with its default by kind.
    pub fn move_policy(&self) -> MovePolicy {
        self.policy.unwrap_or(match self.kind {
            DatastoreKind::Postgres => MovePolicy::Required,
            DatastoreKind::Redis => MovePolicy::Follow,
        })
    }

    /// What commits do while no standby holds them; Redis promises nothing of the kind.
    pub fn protection(&self) -> ProtectionMode {
        self.postgres.as_ref().map(|postgres| postgres.protection).unwrap_or_default()
    }

    /// What follows when its process ends, with its default by kind.
    pub fn on_process_death(&self) -> OnProcessDeath {
        self.on_process_death.unwrap_or(match self.kind {
            DatastoreKind::Postgres => OnProcessDeath::Failover,
            DatastoreKind::Redis => OnProcessDeath::Restart,
        })
    }

    /// The settings of the node in one region.
    pub fn node(&self, region: &Region) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.region == *region)
    }
}
