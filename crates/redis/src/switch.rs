//! The held part of a switch: pause, await, fence, and the way back.
//!
//! The pause ends by itself and the fence does not. So between the two nothing is certain after the
//! pause's end: the fence compares the stream with where it stood, and says no if it moved.
//!
//! The fence leaves the pause running until the node follows the new master or is opened again. A
//! write that comes meanwhile is refused at once all the same (server.c, processCommand: too few
//! replicas is found before the pause), but the pause also holds what no fence refuses and what
//! goes into the replication stream: Sentinel's own `PUBLISH` of its hello, and expiry. A few bytes
//! of those after the promotion cost a full resynchronisation of the old master.

use std::time::Duration;

use tier0_core::observe::RedisRole;
use tier0_core::order::Fact;
use tier0_core::words::RedisPosition;
use tokio::time::Instant;

use crate::conf::FENCED;
use crate::connection::{Batch, Door};
use crate::info::ServerInfo;
use crate::node::{Pause, RedisNode, Run};
use crate::reply::{parts, text};
use crate::trouble::{Ran, Trouble};

/// How long one more look may take: with less left, what was seen last is the answer.
const ONE_MORE_LOOK: Duration = Duration::from_millis(20);
/// How long positions are asked for back to back; after that with a sleep in between.
const EAGER: Duration = Duration::from_millis(20);

/// A `PING` in the replication stream is this long (replication.c, replicationCron).
const PING_BYTES: u64 = 14;

/// What becomes of a running pause when the fence changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseThen {
    /// It runs on until its end.
    RunsOn,
    /// It ends now.
    Ends,
}

impl RedisNode {
    /// `INFO replication`.
    pub(crate) async fn replication(
        &self,
        door: &Door,
        run: &Run<'_>,
    ) -> Result<ServerInfo, Trouble> {
        let batch = Batch::new().tell(["INFO", "replication"]);
        let replies = door.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        Ok(ServerInfo::parse(&replies.first().and_then(text).unwrap_or_default()))
    }

    /// `RedisPause`. A repeat makes the pause longer, never shorter (networking.c, pauseClients).
    pub(crate) async fn pause(&self, run: &Run<'_>, pause_ms: u64) -> Ran {
        let info = self.replication(&self.control, run).await?;
        if info.role != Some(RedisRole::Master) {
            return Err(self.not_master(&info, "only a master's writes can be held"));
        }
        let begun = Instant::now();
        let batch = Batch::new()
            .tell(["CLIENT", "PAUSE", &pause_ms.to_string(), "WRITE"])
            .tell(["INFO", "replication"]);
        let replies = self.control.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        let info = ServerInfo::parse(&replies.get(1).and_then(text).unwrap_or_default());
        let position = known_position(&info)?;
        self.memory().paused = Some(Pause {
            until: begun + Duration::from_millis(pause_ms),
            position: position.clone(),
        });
        Ok(Fact::Offset { position })
    }

    /// `RedisAwait`.
    pub(crate) async fn await_position(&self, run: &Run<'_>, wanted: &RedisPosition) -> Ran {
        let begun = Instant::now();
        let mut seen = None;
        loop {
            let info = match (self.replication(&self.control, run).await, seen) {
                (Ok(info), _) => info,
                // There was not the time for another look: what was seen last is the answer.
                (Err(_), Some(short)) if Instant::now() + ONE_MORE_LOOK >= run.until => {
                    return Err(Trouble::Unknown(short));
                }
                (Err(trouble), _) => return Err(trouble),
            };
            let has = info.covers(&wanted.replication);
            if has.is_some_and(|offset| offset >= wanted.offset) {
                let position = RedisPosition {
                    replication: wanted.replication.clone(),
                    offset: wanted.offset,
                };
                return Ok(Fact::Offset { position });
            }
            let short = || match has {
                Some(offset) => format!(
                    "{} is at {offset} and needs {}: {} bytes are missing",
                    self.settings.id,
                    wanted.offset,
                    wanted.offset - offset
                ),
                None => format!(
                    "{} follows the stream {} and not {}",
                    self.settings.id,
                    info.replication.as_ref().map_or("(none)", |id| id.0.as_str()),
                    wanted.replication
                ),
            };
            if begun.elapsed() < EAGER {
                if Instant::now() >= run.until {
                    return Err(Trouble::Unknown(short()));
                }
                tokio::task::yield_now().await;
            } else {
                run.pause(Duration::from_millis(1), short).await?;
            }
            seen = Some(short());
        }
    }

    /// `RedisFence`. The answer's position is final: nothing is acknowledged after it. Fails, with
    /// the fence in place, if the pause had ended before and the stream had moved; and fails again
    /// when repeated, until it is undone or a new pause is begun.
    ///
    /// The pause is known only to the adapter that began it. After a restart of the agent the
    /// caller must itself compare this position with the one the target has.
    pub(crate) async fn fence(&self, run: &Run<'_>) -> Ran {
        let info = self.set_fence(run, FENCED, PauseThen::RunsOn).await?;
        let fenced = Instant::now();
        let position = known_position(&info)?;
        let Some(pause) = self.memory().paused.clone() else {
            return Ok(Fact::Offset { position });
        };
        let moved = position.offset.saturating_sub(pause.position.offset);
        let same_stream = position.replication == pause.position.replication;
        if fenced <= pause.until || (same_stream && moved <= PING_BYTES) {
            self.memory().paused = None;
            return Ok(Fact::Offset { position });
        }
        Err(Trouble::failed(format!(
            "the pause ended {} ms before the fence was in place, and the stream moved from {} \
             to {}; writes are refused now",
            (fenced - pause.until).as_millis(),
            pause.position.offset,
            position.offset
        )))
    }

    /// `RedisUnfence`.
    pub(crate) async fn unfence(&self, run: &Run<'_>, value: u64) -> Ran {
        self.set_fence(run, value, PauseThen::Ends).await?;
        self.memory().paused = None;
        Ok(Fact::Nothing)
    }

    /// Set `min-replicas-to-write` in one transaction with what becomes of the pause, and look
    /// after it.
    pub(crate) async fn set_fence(
        &self,
        run: &Run<'_>,
        value: u64,
        pause: PauseThen,
    ) -> Result<ServerInfo, Trouble> {
        let value = value.to_string();
        let mut batch = Batch::new()
            .tell(["MULTI"])
            // A lag of 0 would switch the fence off (server.c, checkGoodReplicasStatus).
            .tell(["CONFIG", "SET", "min-replicas-max-lag", &self.max_lag()])
            .tell(["CONFIG", "SET", "min-replicas-to-write", &value]);
        batch = match pause {
            PauseThen::RunsOn => batch,
            PauseThen::Ends => batch.tell(["CLIENT", "UNPAUSE"]),
        };
        let batch = batch.tell(["INFO", "replication"]).tell(["EXEC"]);
        let replies = self.control.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        let done = replies.last().map(parts).unwrap_or_default();
        Ok(ServerInfo::parse(&done.last().and_then(text).unwrap_or_default()))
    }

    fn max_lag(&self) -> String {
        let configured = self
            .settings
            .redis
            .parameters
            .get("min-replicas-max-lag")
            .and_then(|values| values.last()?.trim().parse::<u64>().ok());
        configured.filter(|lag| *lag > 0).unwrap_or(10).to_string()
    }

    pub(crate) fn not_master(&self, info: &ServerInfo, why: &str) -> Trouble {
        let follows = info.master.as_deref().unwrap_or("nobody");
        Trouble::refused(
            "redis-not-master",
            format!("{} is not a master, it follows {follows}: {why}", self.settings.id),
        )
    }
}

/// The position of an answer that must have one.
pub(crate) fn known_position(info: &ServerInfo) -> Result<RedisPosition, Trouble> {
    info.position().ok_or_else(|| {
        Trouble::failed("the server reports no replication id and offset".to_owned())
    })
}
