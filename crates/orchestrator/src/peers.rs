//! The other orchestrators: each is asked all the time what it sees.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tier0_config::{Limits, Secret, Stack};
use tier0_core::orchestrator::{Input, PeerReport};
use tier0_core::words::Site;

use crate::agents::{client, get};
use crate::driver::Driver;

/// The orchestrators of other sites.
pub fn others(stack: &Stack, here: &Site) -> Vec<(Site, SocketAddr)> {
    let all = stack.orchestrators.iter().filter(|one| one.site != *here);
    all.map(|one| (one.site.clone(), one.listen)).collect()
}

/// One of them.
pub struct Peer {
    address: SocketAddr,
    token: Arc<Secret>,
    client: reqwest::Client,
    interval: Duration,
    patience: Duration,
}

impl Peer {
    /// The one at this address.
    pub fn new(address: SocketAddr, token: Arc<Secret>, limits: &Limits) -> anyhow::Result<Peer> {
        Ok(Peer {
            address,
            token,
            client: client()?,
            interval: limits.poll_interval(),
            patience: Duration::from_millis(limits.silence_ms),
        })
    }

    /// Ask at every interval, until the process ends. One that does not answer says nothing.
    pub async fn keep_asking(self, driver: Driver) {
        let mut silent = false;
        loop {
            match self.ask().await {
                Ok(report) => {
                    if std::mem::take(&mut silent) {
                        tracing::info!(site = %report.site, "an orchestrator answers again");
                    }
                    driver.input(Input::Peer(report));
                }
                Err(why) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(address = %self.address, why, "an orchestrator is silent");
                    }
                }
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    async fn ask(&self) -> Result<PeerReport, String> {
        let url = format!("http://{}/peer", self.address);
        get(&self.client, &url, &self.token, self.patience).await
    }
}
