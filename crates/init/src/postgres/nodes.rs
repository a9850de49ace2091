//! A node's adapter, for the lines and the work of adoption.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tier0_config::Stack;
use tier0_core::words::NodeId;
use tier0_postgres::{PostgresNode, PostgresNodeSettings};

use crate::secrets::SecretFiles;

/// The adapter of a node, as its agent will have it.
pub fn adopter(stack: &Stack, node: &NodeId, secrets: &SecretFiles) -> Result<PostgresNode> {
    let datastore = stack
        .datastore(node.datastore())
        .with_context(|| format!("the stack file has no datastore {}", node.datastore()))?;
    let postgres = datastore
        .postgres
        .clone()
        .with_context(|| format!("{} is not PostgreSQL in the stack file", node.datastore()))?;
    let password = secrets.replication_password()?;
    let nodes: BTreeMap<_, _> = datastore
        .nodes
        .iter()
        .map(|one| (NodeId::new(datastore.name.clone(), one.region.clone()), one.clone()))
        .collect();
    Ok(PostgresNode::new(PostgresNodeSettings::new(node.clone(), nodes, postgres, password))?)
}
