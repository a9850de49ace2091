//! `RedisFollow`: a node becomes a replica of another, whatever it was before.
//!
//! A running master is fenced first. Then the new master is asked what it has, so that what it has
//! not can be kept (D4); only then is the server pointed at it.

use std::net::SocketAddr;
use std::time::Duration;

use tier0_core::observe::RedisRole;
use tier0_core::order::Fact;
use tier0_core::words::NodeId;

use crate::conf::FENCED;
use crate::connection::{AskError, Batch, Door};
use crate::divergence::Diverged;
use crate::info::ServerInfo;
use crate::node::{RedisNode, Run};
use crate::process;
use crate::reply::text;
use crate::switch::PauseThen;
use crate::trouble::{Ran, Trouble};

/// How long a server that must follow may leave a question unanswered before it is ended. Whoever
/// must follow must not come back to life as a master.
const DEAF: Duration = Duration::from_secs(3);

/// Whether the data that is there may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldData {
    Use,
    Discard,
}

impl From<bool> for OldData {
    fn from(rebuild: bool) -> Self {
        if rebuild { OldData::Discard } else { OldData::Use }
    }
}

/// What the node is before it follows.
enum Before {
    Down,
    /// A replica of the right master, with its link up.
    Following,
    /// A master, or a replica of another, or without its link.
    Up(RedisRole, Option<u64>),
}

impl RedisNode {
    pub(crate) async fn follow(
        &self,
        run: &Run<'_>,
        upstream: &NodeId,
        min_replicas_to_write: u64,
        old_data: OldData,
    ) -> Ran {
        let id = &self.settings.id;
        let address = match self.address_of(upstream) {
            Some(address) if upstream != id => address,
            Some(_) | None => {
                return Err(Trouble::refused(
                    "redis-no-such-upstream",
                    format!("{id} cannot follow {upstream}"),
                ));
            }
        };
        let peer = Door::new(address, Some(self.settings.password.clone()));
        let before = self.before(run, address).await?;
        if let (Before::Following, OldData::Use) = (&before, old_data) {
            self.set_fence(run, min_replicas_to_write, PauseThen::Ends).await?;
            let method = "unknown".into();
            return Ok(Fact::Followed { method, diverged_bytes: 0, kept_at: None });
        }
        if let Before::Up(RedisRole::Master, fence) = before
            && fence != Some(FENCED)
        {
            self.set_fence(run, FENCED, PauseThen::RunsOn).await?;
        }
        let at_first = self.ready_upstream(run, &peer, upstream).await?;
        let diverged = match (&before, old_data) {
            (Before::Down, _) => {
                let diverged = self.keep_stopped(run, &at_first).await?;
                self.launch_replica(run, address, old_data).await?;
                diverged
            }
            (Before::Following | Before::Up(..), OldData::Discard) => {
                let diverged = self.keep_running(run, &at_first).await?;
                process::kill(&self.place, &self.settings.redis.server_binary).await?;
                self.launch_replica(run, address, old_data).await?;
                diverged
            }
            (Before::Following | Before::Up(..), OldData::Use) => {
                let diverged = self.keep_running(run, &at_first).await?;
                self.point_at(run, address, min_replicas_to_write).await?;
                diverged
            }
        };
        self.linked(run, address).await?;
        self.set_fence(run, min_replicas_to_write, PauseThen::Ends).await?;
        let at_last = self.full_info(run, &peer).await.ok();
        let method = method(&at_first, at_last.as_ref());
        if method != "partial" {
            self.on_disk(run).await?;
        }
        let Diverged { bytes, kept_at } = diverged;
        let kept_at = kept_at.map(|path| path.display().to_string());
        Ok(Fact::Followed { method: method.to_owned(), diverged_bytes: bytes, kept_at })
    }

    async fn before(&self, run: &Run<'_>, upstream: SocketAddr) -> Result<Before, Trouble> {
        let binary = &self.settings.redis.server_binary;
        if process::find(&self.place, binary).is_none() {
            return Ok(Before::Down);
        }
        match self.look_closely(&self.control, run.left(DEAF)).await {
            Err(AskError::Silent { .. }) => {
                run.tell("the server does not answer, and must not wake up as a master");
                tracing::warn!(node = %self.settings.id, "ending a server that does not answer");
                process::kill(&self.place, binary).await?;
                return Ok(Before::Down);
            }
            Err(AskError::Server { address, text }) => {
                return Err(AskError::Server { address, text }.into());
            }
            Ok(_) | Err(AskError::Unreachable { .. } | AskError::Broken { .. }) => {}
        }
        let (info, fence) = self.loaded(run).await?;
        let role = info.role.ok_or_else(|| Trouble::failed("the server reports no role"))?;
        let right = info.master.as_deref() == Some(upstream.to_string().as_str());
        if role == RedisRole::Replica && right && info.link_up && !info.syncing {
            return Ok(Before::Following);
        }
        Ok(Before::Up(role, fence))
    }

    async fn full_info(&self, run: &Run<'_>, peer: &Door) -> Result<ServerInfo, AskError> {
        let batch = Batch::new().tell(["INFO"]);
        let replies = peer.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        Ok(ServerInfo::parse(&replies.first().and_then(text).unwrap_or_default()))
    }

    /// What the upstream has, as soon as it is a master that can serve.
    async fn ready_upstream(
        &self,
        run: &Run<'_>,
        peer: &Door,
        upstream: &NodeId,
    ) -> Result<ServerInfo, Trouble> {
        let mut wait = Duration::from_millis(1);
        loop {
            let why = match self.full_info(run, peer).await {
                Ok(info) if info.loading => format!("{upstream} is loading its data"),
                Ok(info) if info.role == Some(RedisRole::Master) => return Ok(info),
                Ok(_) => format!("{upstream} is not a master yet"),
                Err(error @ AskError::Server { .. }) => return Err(error.into()),
                Err(error) => error.to_string(),
            };
            run.tell(why.clone());
            run.pause(wait, || why).await?;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    }

    async fn launch_replica(
        &self,
        run: &Run<'_>,
        upstream: SocketAddr,
        old_data: OldData,
    ) -> Result<(), Trouble> {
        if old_data == OldData::Discard {
            self.files
                .discard(&self.place)
                .map_err(|e| Trouble::file("discard", &self.place.directory, &e))?;
        }
        run.tell("starting the server as replica");
        self.launch(Some(upstream)).await?;
        self.loaded(run).await?;
        self.append_as_configured(run).await
    }

    /// The change of master of a running server, in one transaction: the role, the fence that fits
    /// it, and the end of every client session, so that clients ask anew who is master.
    async fn point_at(
        &self,
        run: &Run<'_>,
        upstream: SocketAddr,
        min_replicas_to_write: u64,
    ) -> Result<(), Trouble> {
        let batch = Batch::new()
            .tell(["MULTI"])
            .tell(["REPLICAOF", &upstream.ip().to_string(), &upstream.port().to_string()])
            .tell(["CONFIG", "SET", "min-replicas-to-write", &min_replicas_to_write.to_string()])
            .tell(["CLIENT", "UNPAUSE"])
            .tell(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .tell(["EXEC"]);
        self.control.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        self.memory().paused = None;
        self.store_role(Some(upstream));
        Ok(())
    }

    async fn linked(&self, run: &Run<'_>, upstream: SocketAddr) -> Result<(), Trouble> {
        let mut wait = Duration::from_micros(500);
        loop {
            let asked = self
                .control
                .ask(Batch::new().tell(["INFO"]), run.left(self.settings.deadlines.answer));
            let why = match asked.await {
                Ok(replies) => {
                    let info =
                        ServerInfo::parse(&replies.first().and_then(text).unwrap_or_default());
                    if info.master.as_deref() != Some(upstream.to_string().as_str()) {
                        return Err(Trouble::failed(format!(
                            "{} follows {} and not {upstream}: somebody else pointed it there",
                            self.settings.id,
                            info.master.as_deref().unwrap_or("nobody")
                        )));
                    }
                    if info.link_up && !info.syncing && !info.loading {
                        self.remember(&info);
                        return Ok(());
                    }
                    if info.syncing || info.loading {
                        "a full synchronisation is under way".to_owned()
                    } else {
                        format!("not linked to {upstream} yet")
                    }
                }
                // A server that loads an RDB may be slow to answer.
                Err(error) => error.to_string(),
            };
            if process::find(&self.place, &self.settings.redis.server_binary).is_none() {
                return Err(Trouble::failed("the server ended while it was to follow"));
            }
            run.tell(why.clone());
            run.pause(wait, || why).await?;
            wait = (wait * 2).min(Duration::from_millis(100));
        }
    }

    /// After a full synchronisation: wait until the new append-only file is whole. Before that a
    /// crash would bring back the data from before the synchronisation.
    async fn on_disk(&self, run: &Run<'_>) -> Result<(), Trouble> {
        loop {
            let (info, _) =
                self.look_closely(&self.control, run.left(self.settings.deadlines.answer)).await?;
            if !info.aof_rewriting {
                return Ok(());
            }
            run.pause(Duration::from_millis(10), || {
                "linked; the append-only file is still being written".into()
            })
            .await?;
        }
    }
}

/// How it was brought in step, by what its master counted meanwhile.
fn method(before: &ServerInfo, after: Option<&ServerInfo>) -> &'static str {
    let Some(after) = after else { return "unknown" };
    let more = |then: Option<u64>, now: Option<u64>| now.zip(then).map(|(now, then)| now > then);
    match (more(before.sync_full, after.sync_full), more(before.sync_partial, after.sync_partial)) {
        (Some(true), _) => "full",
        (Some(false), Some(true)) => "partial",
        (Some(false), _) | (None, _) => "unknown",
    }
}
