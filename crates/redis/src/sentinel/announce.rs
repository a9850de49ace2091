//! Telling Sentinels who is master: `RedisAnnounce`, and the repair of those that were away.

use std::net::SocketAddr;
use std::sync::Arc;

use tier0_core::order::Fact;

use super::hello::Hello;
use super::round::{Patience, round};
use super::state::{Identity, SentinelState};
use super::{Sentinel, Sentinels, SentinelsTold};
use crate::connection::{AskError, Batch};
use crate::node::{RedisNode, Run};
use crate::reply::{parts, text};
use crate::trouble::{Ran, Trouble};

type States = Vec<(Arc<Sentinel>, SentinelState)>;

impl RedisNode {
    /// `RedisAnnounce`. Sentinels that cannot be reached now are told by
    /// [`RedisNode::repair_sentinels`] when they are back.
    pub(crate) async fn announce(&self, run: &Run<'_>, won: Option<u64>) -> Ran {
        run.tell("telling the Sentinels");
        self.sentinels.announce(self.place.address, won).await
    }
}

/// The epoch to announce with: the one that was won, unless a Sentinel has it or a higher one for
/// another configuration; such a Sentinel would not listen.
fn epoch_for(
    states: &[(Arc<Sentinel>, SentinelState)],
    won: Option<u64>,
    master: SocketAddr,
) -> u64 {
    let highest = states.iter().map(|(_, state)| state.config_epoch).max().unwrap_or(0);
    let taken = |epoch| {
        states.iter().any(|(_, state)| {
            state.config_epoch > epoch || (state.config_epoch == epoch && !state.names(master))
        })
    };
    match won {
        Some(epoch) if !taken(epoch) => epoch,
        Some(_) | None => highest.saturating_add(1),
    }
}

/// Whether all name this master with one and the same epoch.
fn agree(states: &[(Arc<Sentinel>, SentinelState)], master: SocketAddr) -> bool {
    let mut epochs = states.iter().map(|(_, state)| state.config_epoch);
    let first = epochs.next();
    states.iter().all(|(_, state)| state.names(master)) && epochs.all(|epoch| Some(epoch) == first)
}

impl Sentinels {
    async fn announce(&self, master: SocketAddr, won: Option<u64>) -> Ran {
        let of = self.count();
        let (states, missing) = self.gather(Patience::Living).await;
        if states.is_empty() && of > 0 {
            return Err(Trouble::failed(format!(
                "none of {of} Sentinels can be reached: {}",
                missing.join("; ")
            )));
        }
        let (told, epoch) = self.tell(&states, master, won).await;
        let agree = u32::try_from(told.len()).unwrap_or(u32::MAX);
        Ok(Fact::Announced { agree, of, epoch })
    }

    /// See [`RedisNode::repair_sentinels`].
    pub(crate) async fn repair(&self, master: SocketAddr) -> SentinelsTold {
        let of = self.count();
        let wrong =
            self.all.iter().filter_map(|one| one.known().ok()).any(|state| !state.names(master));
        let known = self.all.iter().filter(|one| one.known().is_ok()).count();
        if !wrong {
            return SentinelsTold { told: 0, already: u32::try_from(known).unwrap_or(of), of };
        }
        // What is remembered may be old; what is told must not be.
        let (states, _) = self.gather(Patience::Everyone).await;
        let right = states.iter().filter(|(_, state)| state.names(master)).count();
        if right == states.len() {
            return SentinelsTold { told: 0, already: u32::try_from(right).unwrap_or(of), of };
        }
        let (told, epoch) = self.tell(&states, master, None).await;
        let told = told.len().saturating_sub(right);
        tracing::info!(told, epoch, %master, "Sentinels that named another master were told");
        SentinelsTold {
            told: u32::try_from(told).unwrap_or(of),
            already: u32::try_from(right).unwrap_or(of),
            of,
        }
    }

    /// Tell these Sentinels. Comes back with those that name `master` now, and with the epoch.
    async fn tell(&self, states: &States, master: SocketAddr, won: Option<u64>) -> (States, u64) {
        let first = states.iter().map(|(_, state)| state.config_epoch).next();
        if let (true, Some(epoch)) = (agree(states, master), first)
            && won.is_none_or(|won| won <= epoch)
        {
            return (states.clone(), epoch);
        }
        let epoch = epoch_for(states, won, master);
        let within = self.deadlines.sentinel;
        let asked = states.iter().map(|(one, state)| {
            let question = async {
                let said = self.say_hello(one, state, states, master, epoch).await;
                (Arc::clone(one), said)
            };
            (one.standing(), question)
        });
        // All of these answered a moment ago.
        let answers =
            round(asked, self.majority(), within, Patience::Living, |(_, said)| said.is_ok()).await;
        let mut right = States::new();
        for (one, said) in answers {
            match said {
                Ok(state) if state.names(master) && state.config_epoch == epoch => {
                    one.remember(Ok(state.clone()));
                    right.push((one, state));
                }
                Ok(state) => tracing::warn!(sentinel = %one.address, says = %state.ip,
                    port = state.port, "a Sentinel did not take the new master"),
                Err(error) => tracing::warn!(%error, "a Sentinel could not be told"),
            }
        }
        self.relock(&right, epoch + 1).await;
        (right, epoch)
    }

    async fn say_hello(
        &self,
        one: &Sentinel,
        state: &SentinelState,
        all: &States,
        master: SocketAddr,
        epoch: u64,
    ) -> Result<SentinelState, AskError> {
        let Some(sender) = sender_for(state, all) else {
            return Err(AskError::Server {
                address: one.address,
                text: "it knows no other Sentinel that could have told it".to_owned(),
            });
        };
        let hello = Hello {
            ip: sender.ip,
            port: sender.port,
            id: sender.id,
            current_epoch: epoch,
            master_name: self.name.clone(),
            master_ip: master.ip().to_string(),
            master_port: master.port(),
            config_epoch: epoch,
        };
        // A Sentinel takes a published hello in at once (sentinel.c, sentinelPublishCommand), so
        // the answers behind it are already those of the new configuration.
        let batch = Batch::new()
            .tell(["PUBLISH", "__sentinel__:hello", &hello.to_string()])
            .tell(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.name])
            .tell(["SENTINEL", "MASTER", &self.name]);
        let replies = one.door.ask(batch, self.deadlines.sentinel).await?;
        let named = replies.get(1).map(parts).unwrap_or_default();
        let after = replies.get(2).and_then(SentinelState::read_master);
        let unusable = || AskError::Server {
            address: one.address,
            text: "nothing usable after a hello".to_owned(),
        };
        let mut after = after.ok_or_else(unusable)?;
        // What clients are told counts.
        after.ip = named.first().and_then(text).ok_or_else(unusable)?;
        after.port =
            named.get(1).and_then(text).and_then(|port| port.parse().ok()).ok_or_else(unusable)?;
        after.id = state.id.clone();
        after.peers = state.peers.clone();
        Ok(after)
    }
}

/// Whose name to use: a peer that the Sentinel knows, in the words it knows it by. Where it knows
/// none (just started), the real identity of another configured Sentinel, which it would get to
/// know anyway.
fn sender_for(state: &SentinelState, all: &States) -> Option<Identity> {
    state.peers.first().cloned().or_else(|| {
        all.iter().find(|(_, other)| other.id != state.id && other.id.len() == 40).map(
            |(one, other)| Identity {
                ip: one.address.ip().to_string(),
                port: one.address.port(),
                id: other.id.clone(),
            },
        )
    })
}
