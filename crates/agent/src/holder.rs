//! The agent as holder of its region's lease: asks its peers while no grant comes, and holds its
//! writing servers where nobody says any more that they may serve (L2, L4).
//!
//! A file says that a server is held, so that the next agent neither takes it for dead nor leaves
//! it so. Left out: who grants, and for how long (the orchestrator and the core).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tier0_config::Secret;
use tier0_core::lease::{Holding, Server, Standing, holding};
use tier0_core::words::{Heard, Region};
use tier0_wire::{ConfirmAnswer, ConfirmRequest, PROTOCOL};

use crate::boot;
use crate::desk::Desk;
use crate::node::Node;

/// How often the standing is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The agents of the other regions.
pub struct Peers {
    addresses: Vec<(Region, SocketAddr)>,
    token: Arc<Secret>,
    client: reqwest::Client,
}

impl Peers {
    /// Agents at these addresses.
    pub fn new(addresses: Vec<(Region, SocketAddr)>, token: Arc<Secret>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .context("build an HTTP client")?;
        Ok(Peers { addresses, token, client })
    }

    /// Whether one of them confirms that it knows of no other writer.
    async fn confirm(&self, heard: &Heard, length: Duration) -> bool {
        let mut asking = tokio::task::JoinSet::new();
        for (_, address) in &self.addresses {
            let request = ConfirmRequest {
                protocol: PROTOCOL,
                lineage: heard.lineage.clone(),
                epoch: heard.epoch,
                lease_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            };
            let asked = self
                .client
                .post(format!("http://{address}/v1/confirm"))
                .bearer_auth(self.token.expose())
                .timeout(length / 3)
                .json(&request)
                .send();
            asking.spawn(async move {
                let answer = asked.await.ok()?.error_for_status().ok()?;
                answer.json::<ConfirmAnswer>().await.ok()
            });
        }
        while let Some(answer) = asking.join_next().await {
            if matches!(answer, Ok(Some(ConfirmAnswer { confirmed: true }))) {
                return true;
            }
        }
        false
    }
}

/// Ask peers whenever no grant has come for a while, for ever.
pub async fn keep_asking(desk: Arc<Desk>, directory: PathBuf, peers: Peers) {
    let held = |node: &Arc<Node>| marker(&directory, node).exists();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some((heard, length)) = desk.question() else { continue };
        // A server that this agent found held has not been seen writing.
        if !desk.has_a_writing_node() && !desk.nodes().any(held) {
            continue;
        }
        let asked = boot::now();
        if peers.confirm(&heard, length).await {
            desk.confirmed(&heard, asked);
        } else {
            tokio::time::sleep(length / 8).await;
        }
    }
}

/// What an earlier agent was just ending when it was killed is held from now on. To be done before any
/// command is taken.
pub fn take_up(desk: &Desk, directory: &Path) -> std::io::Result<()> {
    for node in desk.nodes() {
        if node.is_left_ending()? {
            std::fs::write(marker(directory, node), b"")?;
            node.hold()?;
            tracing::warn!(node = %node.id, "the server was left on the way to its end: it is held");
        }
        node.forget_ending()?;
    }
    Ok(())
}

/// Hold, release and end this region's servers as it stands, for ever.
pub async fn keep_holding(desk: Arc<Desk>, directory: PathBuf) {
    loop {
        let standing = desk.standing();
        for node in desk.nodes() {
            if let Err(error) = settle(node, standing, &marker(&directory, node)) {
                tracing::error!(node = %node.id, %error, "a server cannot be held or released");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn marker(directory: &Path, node: &Node) -> PathBuf {
    directory.join(format!("held.{}", node.id))
}

fn settle(node: &Node, standing: Standing, marker: &Path) -> std::io::Result<()> {
    let server = if marker.exists() {
        Server::Held
    } else if node.is_being_ended() {
        Server::Other
    } else {
        node.writes()
    };
    match holding(standing, server) {
        Holding::Leave => {}
        Holding::Release => {
            node.release()?;
            tracing::warn!(node = %node.id, "the lease is back: the server goes on");
            std::fs::remove_file(marker)?;
            node.look_now();
        }
        Holding::Hold => {
            // The file first: whoever comes after must know.
            std::fs::write(marker, b"")?;
            node.hold()?;
            tracing::warn!(
                node = %node.id,
                ?standing,
                "nobody says any more that this region is the writer: the server is held"
            );
        }
        Holding::End => {
            node.end_held()?;
            tracing::warn!(node = %node.id, "another region is the writer: the held server is ended");
            std::fs::remove_file(marker)?;
            node.look_now();
        }
    }
    Ok(())
}
