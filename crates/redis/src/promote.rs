//! `RedisPromote`: a replica becomes master, if its data may be trusted (D3).

use std::time::Duration;

use tier0_core::observe::RedisRole;
use tier0_core::order::Fact;
use tokio::time::Instant;

use crate::conf::{self, AppendOnly};
use crate::connection::Batch;
use crate::info::ServerInfo;
use crate::node::{RedisNode, Run};
use crate::reply::{parts, text};
use crate::switch::{PauseThen, known_position};
use crate::trouble::{Ran, Trouble};

/// Whether what the replica does not have may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Refused,
    Accepted,
}

impl From<bool> for Loss {
    fn from(accepted: bool) -> Self {
        if accepted { Loss::Accepted } else { Loss::Refused }
    }
}

impl RedisNode {
    /// `RedisPromote`. The new master gets `min-replicas-to-write 0`: it is the only copy, and any
    /// other value would refuse every write until a replica is back.
    pub(crate) async fn promote(&self, run: &Run<'_>, loss: Loss) -> Ran {
        let (info, fence) =
            self.look_closely(&self.control, run.left(self.settings.deadlines.answer)).await?;
        if info.loading {
            return Err(Trouble::refused(
                "redis-loading",
                format!("{} is loading its data", self.settings.id),
            ));
        }
        match info.role {
            Some(RedisRole::Master) => {
                if fence != Some(0) {
                    self.set_fence(run, 0, PauseThen::Ends).await?;
                }
                return Ok(Fact::RedisPromoted { position: known_position(&info)? });
            }
            Some(RedisRole::Replica) => self.check_replica(&info, loss)?,
            None => return Err(Trouble::failed("the server reports no role")),
        }
        let batch = Batch::new()
            .tell(["MULTI"])
            .tell(["REPLICAOF", "NO", "ONE"])
            .tell(["CONFIG", "SET", "min-replicas-to-write", "0"])
            .tell(["CLIENT", "UNPAUSE"])
            .tell(["INFO", "replication"])
            .tell(["EXEC"]);
        let replies = self.control.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        let done = replies.last().map(parts).unwrap_or_default();
        let info = ServerInfo::parse(&done.last().and_then(text).unwrap_or_default());
        if info.role != Some(RedisRole::Master) {
            return Err(Trouble::failed(format!("{} is still a replica", self.settings.id)));
        }
        let position = known_position(&info)?;
        self.remember(&info);
        self.store_role(None);
        Ok(Fact::RedisPromoted { position })
    }

    fn check_replica(&self, info: &ServerInfo, loss: Loss) -> Result<(), Trouble> {
        let id = &self.settings.id;
        // Half a copy is no copy: this one cannot be accepted.
        if info.syncing {
            return Err(Trouble::refused(
                "redis-syncing",
                format!("{id} is in the middle of a full synchronisation"),
            ));
        }
        if loss == Loss::Accepted {
            return Ok(());
        }
        if info.position().is_none() {
            return Err(Trouble::refused(
                "redis-never-linked",
                format!("{id} has never received anything from a master"),
            ));
        }
        if info.link_up {
            return Ok(());
        }
        // One that was started again since has no time to say: its agent may know one.
        let known = || {
            let (now, in_step) = (Instant::now(), &mut self.memory().in_step);
            in_step.seen(info, now);
            in_step.ago(info, now).map(|ago| ago.as_secs())
        };
        let Some(down) = info.link_down_seconds.or_else(known) else {
            return Err(Trouble::refused(
                "redis-never-linked",
                format!(
                    "{id} has not been linked to a master since it started, and its agent has not \
                     seen how new the data was that it started with"
                ),
            ));
        };
        // Sentinel's own rule for candidates (sentinel.c, sentinelSelectSlave): the link may be
        // down for as long as the master is known to be, plus ten times down-after.
        let allowed = Duration::from_millis(self.settings.redis.down_after_ms.saturating_mul(10))
            + self.sentinels.master_down_for();
        if Duration::from_secs(down) > allowed {
            return Err(Trouble::refused(
                "redis-stale-replica",
                format!(
                    "{id} lost its master {down} s ago, more than the {} s for which the master \
                     can have been down",
                    allowed.as_secs()
                ),
            ));
        }
        Ok(())
    }

    /// Write the file for whoever starts the server by hand: with this role, and fenced. The agent
    /// itself writes it anew before each start, so nobody waits for this and a failure is only
    /// logged.
    pub(crate) fn store_role(&self, upstream: Option<std::net::SocketAddr>) {
        let (settings, place) = (self.settings.clone(), self.place.clone());
        self.conf_file.later(move || {
            let parameters = &settings.redis.parameters;
            let as_configured = AppendOnly::AsConfigured;
            let written =
                conf::write(parameters, &place, &settings.password, upstream, as_configured);
            if let Err(error) = written {
                tracing::warn!(%error, node = %settings.id, "redis.conf could not be written");
            }
        });
    }
}
