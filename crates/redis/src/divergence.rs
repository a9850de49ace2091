//! What this node has and its new master has not: how much it is, and a copy of it before Redis
//! discards it (D4). No copy, no resynchronisation.

use std::path::PathBuf;
use std::time::Duration;

use tier0_core::observe::RedisRole;

use crate::conf;
use crate::connection::Batch;
use crate::disk::{Keeping, OnDisk};
use crate::info::ServerInfo;
use crate::last_seen::LastSeen;
use crate::node::{RedisNode, Run};
use crate::reply::text;
use crate::trouble::Trouble;

/// What diverged and where it was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diverged {
    /// Bytes of the replication stream that the new master has not. A lower bound where the node
    /// was down. Where no history is shared: the size of everything kept.
    pub bytes: u64,
    /// The copy.
    pub kept_at: Option<PathBuf>,
}

/// How far a node's stream is beyond another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// By so many bytes.
    Bytes(u64),
    /// They share no history that either remembers.
    Unrelated,
}

/// How far `own` is beyond what `upstream` has.
fn beyond(own: &ServerInfo, upstream: &ServerInfo) -> Beyond {
    let Some(position) = own.position() else { return Beyond::Unrelated };
    if let Some(has) = upstream.covers(&position.replication) {
        return Beyond::Bytes(position.offset.saturating_sub(has));
    }
    // This node left the shared history by a promotion of its own.
    let shared = own.second.as_ref().and_then(|second| {
        Some(upstream.covers(&second.replication)?.min(second.offset.saturating_sub(1)))
    });
    shared.map_or(Beyond::Unrelated, |shared| Beyond::Bytes(position.offset.saturating_sub(shared)))
}

impl RedisNode {
    /// Keep what the running server has beyond `upstream`. The server must be fenced already.
    pub(crate) async fn keep_running(
        &self,
        run: &Run<'_>,
        upstream: &ServerInfo,
    ) -> Result<Diverged, Trouble> {
        let (own, _) =
            self.look_closely(&self.control, run.left(self.settings.deadlines.answer)).await?;
        let beyond = beyond(&own, upstream);
        match beyond {
            Beyond::Bytes(0) => return Ok(Diverged::default()),
            // Only deletions diverged: there is nothing to copy.
            Beyond::Bytes(bytes) if own.keys == 0 => {
                return Ok(Diverged { bytes, kept_at: None });
            }
            Beyond::Unrelated if own.keys == 0 => return Ok(Diverged::default()),
            Beyond::Bytes(_) | Beyond::Unrelated => {}
        }
        run.tell("keeping a copy of data that the new master does not have");
        self.save(run, &own).await?;
        let keep = |error| Trouble::file("keep a copy of", &self.place.directory, &error);
        let keeping = Keeping::begin(&self.place).map_err(keep)?;
        keeping.take_snapshot(&self.files.snapshot(&self.place)).map_err(keep)?;
        self.kept(keeping, beyond)
    }

    /// `BGSAVE`, and wait until it is on disk.
    async fn save(&self, run: &Run<'_>, before: &ServerInfo) -> Result<(), Trouble> {
        let answer = self.settings.deadlines.answer;
        let batch = Batch::new().tell(["BGSAVE", "SCHEDULE"]);
        let replies = self.control.ask_plainly(batch, run.left(answer)).await?;
        if let Some(why) = crate::reply::first_error(&replies) {
            // One that is under way already may have begun before the fence, so the count below
            // is what decides.
            tracing::info!(why, node = %self.settings.id, "BGSAVE");
        }
        loop {
            let batch = Batch::new().tell(["INFO", "persistence"]);
            let replies = self.control.ask(batch, run.left(answer)).await?;
            let now = ServerInfo::parse(&replies.first().and_then(text).unwrap_or_default());
            if !now.bgsave_running {
                if now.rdb_saves > before.rdb_saves && !before.bgsave_running {
                    return Ok(());
                }
                if !now.bgsave_ok {
                    return Err(Trouble::failed(
                        "the data that the new master does not have could not be saved; the \
                         server's log says why",
                    ));
                }
                if before.bgsave_running {
                    return Box::pin(self.save(run, &now)).await;
                }
            }
            run.pause(Duration::from_millis(5), || "the snapshot is still being written".into())
                .await?;
        }
    }

    /// Keep what the stopped server left on disk, if it may be beyond `upstream`.
    pub(crate) async fn keep_stopped(
        &self,
        run: &Run<'_>,
        upstream: &ServerInfo,
    ) -> Result<Diverged, Trouble> {
        let last = self.last_seen();
        let seen_as = last.as_ref().map(|last| last.role);
        // A replica's data came from a master; only a master's own can be unknown elsewhere.
        let was_replica = conf::says_replica(&self.place) && seen_as != Some(RedisRole::Master);
        if was_replica || self.files.look(&self.place) == OnDisk::Nothing {
            return Ok(Diverged::default());
        }
        run.tell("keeping a copy of data that the new master may not have");
        let beyond = last.map_or(Beyond::Unrelated, |LastSeen { position, .. }| {
            upstream
                .covers(&position.replication)
                .map_or(Beyond::Unrelated, |has| Beyond::Bytes(position.offset.saturating_sub(has)))
        });
        let (files, place) = (self.files.clone(), self.place.clone());
        let copied = tokio::task::spawn_blocking(move || {
            let keeping = Keeping::begin(&place)?;
            keeping.copy_all(&files, &place)?;
            Ok(keeping)
        });
        let keep = |error| Trouble::file("keep a copy of", &self.place.directory, &error);
        let keeping = copied
            .await
            .map_err(|error| Trouble::Unknown(format!("the copy was interrupted: {error}")))?
            .map_err(keep)?;
        self.kept(keeping, beyond)
    }

    fn kept(&self, keeping: Keeping, beyond: Beyond) -> Result<Diverged, Trouble> {
        let (kept_at, size) = keeping
            .finish()
            .map_err(|error| Trouble::file("keep a copy of", &self.place.directory, &error))?;
        let bytes = match beyond {
            Beyond::Bytes(bytes) => bytes,
            Beyond::Unrelated => size,
        };
        tracing::warn!(node = %self.settings.id, bytes, kept_at = %kept_at.display(),
            "data that the new master does not have was kept");
        Ok(Diverged { bytes, kept_at: Some(kept_at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(replication: char, offset: u64, second: Option<(char, u64)>) -> ServerInfo {
        let second = second.map_or(String::new(), |(id, offset)| {
            format!("master_replid2:{}\nsecond_repl_offset:{offset}\n", id.to_string().repeat(40))
        });
        let id = replication.to_string().repeat(40);
        ServerInfo::parse(&format!(
            "role:master\nmaster_replid:{id}\nmaster_repl_offset:{offset}\n{second}"
        ))
    }

    #[test]
    fn bytes_after_the_fork_are_counted() {
        let new_master = at('b', 900, Some(('a', 501)));
        assert_eq!(beyond(&at('a', 500, None), &new_master), Beyond::Bytes(0));
        assert_eq!(beyond(&at('a', 640, None), &new_master), Beyond::Bytes(140));
        assert_eq!(beyond(&at('a', 100, None), &new_master), Beyond::Bytes(0));
        assert_eq!(beyond(&at('c', 100, None), &new_master), Beyond::Unrelated);
        // Both were promoted, at different places of the same history.
        assert_eq!(beyond(&at('d', 700, Some(('a', 601))), &new_master), Beyond::Bytes(200));
        assert_eq!(beyond(&at('d', 700, Some(('a', 401))), &new_master), Beyond::Bytes(300));
    }
}
