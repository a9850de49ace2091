//! Making the very first node's data, as the user that the servers run as.
//!
//! Every other node's data is made by tier0 itself: a standby joins by base backup, Redis needs
//! none.

use std::path::Path;

use anyhow::{Context, Result};
use tier0_config::{Secret, Stack};
use tier0_core::words::NodeId;
use tier0_postgres::{PostgresNode, PostgresNodeSettings};

use crate::secrets::SecretFiles;

/// Make the data directory of `node`, the first of its datastore.
pub async fn initialise_node(config: &Path, node: &NodeId) -> Result<()> {
    let stack = Stack::load(config)?;
    let datastore = stack
        .datastore(node.datastore())
        .with_context(|| format!("{} has no datastore {}", config.display(), node.datastore()))?;
    let postgres = datastore
        .postgres
        .clone()
        .with_context(|| format!("{} is no PostgreSQL datastore", node.datastore()))?;
    let replication_password = postgres.replication_password_file.read()?;
    // PostgreSQL keeps what is already made from a password as it is (`crypt.c`, `encrypt_password`).
    let directory = config.parent().context("where the lab is")?;
    let verifier = Secret::from_file(&SecretFiles::below(directory).application_verifier)?;
    let nodes = datastore
        .nodes
        .iter()
        .map(|settings| {
            let id = NodeId::new(datastore.name.clone(), settings.region.clone());
            (id, settings.clone())
        })
        .collect();
    let settings = PostgresNodeSettings::new(node.clone(), nodes, postgres, replication_password);
    PostgresNode::new(settings)?.initialise(&verifier).await?;
    Ok(())
}
