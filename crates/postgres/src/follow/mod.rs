//! Becoming a standby, by the lightest way that works: streaming, else rewind, else base backup.
//!
//! What this node has and its new upstream has not is measured and kept before anything could
//! discard it (P6). A heavier rung is taken only while the upstream answers: a link that broke is
//! no reason to throw data away.

mod base_backup;
mod divergence;
mod rewind;
mod source;
mod streaming;

use std::path::PathBuf;

use tier0_core::order::Fact;
use tier0_core::words::NodeId;

use crate::base_directory::BaseDirectory;
use crate::deadline::Deadline;
use crate::history::Parting;
use crate::marker::{self, Rewinding};
use crate::node::{Progress, Server};
use crate::standby::Place;
use crate::trouble::{Attempt, Trouble};

use divergence::Kept;
use source::Source;

/// Whether data that could be used may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// Use what is there where that works.
    IfNeeded,
    /// Make the data directory anew.
    Always,
}

/// What becomes of a data directory that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldData {
    /// It stays untouched beside the new one.
    Keep,
    /// It goes once the new one is in its place.
    Discard,
}

/// What an order asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    rebuild: Rebuild,
    old: OldData,
}

impl Wish {
    /// From the order's fields.
    pub(crate) fn of(rebuild: bool, keep_old: bool) -> Self {
        Wish {
            rebuild: if rebuild { Rebuild::Always } else { Rebuild::IfNeeded },
            old: if keep_old { OldData::Keep } else { OldData::Discard },
        }
    }
}

/// The rung of the ladder that worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Streaming,
    Rewind,
    BaseBackup,
}

impl Method {
    fn fact(self, kept: Kept) -> Fact {
        let method = match self {
            Method::Streaming => "streaming",
            Method::Rewind => "rewind",
            Method::BaseBackup => "base-backup",
        };
        Fact::Followed {
            method: method.to_owned(),
            diverged_bytes: kept.bytes,
            kept_at: kept.at.map(|path: PathBuf| path.display().to_string()),
        }
    }
}

impl Server {
    /// Be a standby of `upstream` under the join name.
    pub(crate) async fn follow(
        &self,
        upstream: &NodeId,
        wish: Wish,
        deadline: Deadline,
        progress: Progress<'_>,
    ) -> Attempt<Fact> {
        self.until_gone(deadline).await?;
        // A copy or a rewind brings the source's files along.
        self.keep_operators_files().await?;
        let source = self.source(upstream, deadline).await?;
        source.keep_slot(&self.node.settings.node.slot_name(), deadline).await?;
        if wish.rebuild == Rebuild::IfNeeded && self.follow_running(&source, deadline).await? {
            return Ok(Method::Streaming.fact(Kept::nothing()));
        }
        if self.running()?.is_some() {
            progress("stopping the server".to_owned());
            self.stop_wholly(deadline).await?;
        }
        // pg_rewind recovers a crashed server, which the crashed one's leftovers would prevent.
        self.end_orphans().await?;
        match BaseDirectory::look(&self.node.paths) {
            BaseDirectory::Empty => {
                self.base_backup(&source, wish.old, deadline, progress).await?;
                Ok(Method::BaseBackup.fact(Kept::nothing()))
            }
            BaseDirectory::Unusable => {
                self.replace_unusable(&source, wish, deadline, progress).await
            }
            BaseDirectory::Primary | BaseDirectory::Standby => {
                self.climb(&source, wish, deadline, progress).await
            }
        }
    }

    /// Follow without a restart, where a standby runs. Whether it streams.
    async fn follow_running(&self, source: &Source<'_>, deadline: Deadline) -> Attempt<bool> {
        if self.running()?.is_none() {
            return Ok(false);
        }
        let Ok(session) = self.session(deadline.at_most(self.node.settings.stream_limit)).await
        else {
            return Ok(false);
        };
        let standby = match self.place(&session, deadline).await? {
            Place::Standby(standby) => standby,
            // Told to be a standby, it must not stay primary; but one of two primaries that does
            // not know of the other's promotion would be thrown away for nothing.
            Place::Primary(own)
                if own.system == source.system && own.timeline < source.timeline =>
            {
                return Ok(false);
            }
            Place::Primary(own) => {
                return Err(Trouble::refused(
                    "upstream-not-newer",
                    format!(
                        "this server is a primary at {own} of system {}; its upstream is on \
                         timeline {} of system {}",
                        own.system, source.timeline, source.system
                    ),
                ));
            }
        };
        if standby.position.system != source.system {
            return Ok(false);
        }
        if standby.position.timeline == source.timeline
            && standby.position.lsn > source.flushed(deadline).await?
        {
            // It may stream all the same, over what it has: `climb` keeps that first.
            return Ok(false);
        }
        let name = self.node.settings.node.join_name();
        let address = source.node.address;
        let there = (address.ip().to_string(), address.port().to_string());
        let streams = standby.stream.as_ref().is_some_and(|stream| {
            stream.is_streaming_as(&name)
                && stream.timeline == source.timeline
                && stream.upstream.as_ref() == Some(&there)
        });
        if !streams {
            self.forget_membership().await?;
            self.write_role(&self.standby_role(source)).await?;
            self.reload()?;
            match self.until_streaming(source, deadline).await {
                Ok(()) => {}
                // It may be busy still, and there is no time left for anything else.
                Err(trouble) if deadline.passed() => return Err(trouble),
                Err(trouble) => {
                    tracing::info!(%trouble, "does not stream without a restart");
                    return Ok(false);
                }
            }
        }
        self.keep_local_slots(&session, deadline).await;
        self.let_readers_in().await?;
        Ok(true)
    }

    async fn climb(
        &self,
        source: &Source<'_>,
        wish: Wish,
        deadline: Deadline,
        progress: Progress<'_>,
    ) -> Attempt<Fact> {
        let system = match self.control.read(&self.node).await {
            Ok(control) => control.system,
            Err(error) => return Err(Trouble::failed(error.to_string())),
        };
        if system != source.system {
            if wish.rebuild == Rebuild::IfNeeded {
                return Err(Trouble::refused(
                    "foreign-system",
                    format!("the data is of system {system}, the upstream's of {}", source.system),
                ));
            }
            self.base_backup(source, OldData::Keep, deadline, progress).await?;
            return Ok(Method::BaseBackup.fact(Kept::nothing()));
        }
        let parting = self.parting(source, deadline).await?;
        progress(match parting {
            Parting::Same => "same timeline as the upstream".to_owned(),
            Parting::At(timeline, lsn) => {
                format!("the upstream left timeline {timeline} at {lsn}")
            }
            Parting::Never => "no history in common with the upstream".to_owned(),
        });
        let surplus = match parting {
            // More than its upstream wrote: the upstream has lost something, by its disk or a
            // restored copy, and this may be all there is of it.
            Parting::Same => {
                let written = source.flushed(deadline).await?;
                self.surplus(source.timeline, written).await?
            }
            Parting::At(timeline, lsn) => self.surplus(timeline, lsn).await?,
            Parting::Never => {
                self.base_backup(source, OldData::Keep, deadline, progress).await?;
                return Ok(Method::BaseBackup.fact(Kept::nothing()));
            }
        };
        let replaces = wish.rebuild == Rebuild::Always || wish.old == OldData::Keep;
        if surplus.bytes == 0 && wish.rebuild == Rebuild::IfNeeded {
            progress("starting as a standby".to_owned());
            let trouble = match self.start_streaming(source, deadline).await {
                Ok(()) => return Ok(Method::Streaming.fact(Kept::nothing())),
                Err(trouble) => trouble,
            };
            tracing::warn!(%trouble, "streaming did not come about");
            source.still_answers(deadline).await?;
            if deadline.passed() {
                return Err(trouble);
            }
            progress(format!("does not stream ({trouble}); stopping again"));
            self.stop_wholly(deadline).await?;
        }
        let kept = self.keep(&surplus, progress).await?;
        if matches!(parting, Parting::At(..)) && !replaces {
            match self.rewind(source, &kept, deadline, progress).await {
                Ok(()) => return Ok(Method::Rewind.fact(kept)),
                Err(trouble) => {
                    tracing::warn!(%trouble, "rewind did not work");
                    source.still_answers(deadline).await?;
                    progress(format!("rewind did not work ({trouble})"));
                    self.stop_wholly(deadline).await?;
                }
            }
        }
        self.base_backup(source, wish.old, deadline, progress).await?;
        Ok(Method::BaseBackup.fact(kept))
    }

    /// Stop, and wait until no process is left in the data directory.
    async fn stop_wholly(&self, deadline: Deadline) -> Attempt<()> {
        self.stop(deadline.at_most(self.node.settings.stream_limit)).await?;
        self.until_gone(deadline).await
    }

    /// A data directory that no server may be started on is replaced. It goes only where what it
    /// had too much was kept before.
    async fn replace_unusable(
        &self,
        source: &Source<'_>,
        wish: Wish,
        deadline: Deadline,
        progress: Progress<'_>,
    ) -> Attempt<Fact> {
        let rewinding = marker::read::<Rewinding>(&self.node.paths.rewinding);
        let (kept, old) = match rewinding {
            Ok(Some(rewinding)) => {
                (Kept { bytes: rewinding.diverged_bytes, at: rewinding.kept_at }, wish.old)
            }
            Ok(None) | Err(_) => (Kept::nothing(), OldData::Keep),
        };
        progress("the data directory cannot be used".to_owned());
        self.base_backup(source, old, deadline, progress).await?;
        Ok(Method::BaseBackup.fact(kept))
    }
}
