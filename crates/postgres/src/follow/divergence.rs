//! What a stopped node has written that its upstream has not: found, counted, and kept (P6).
//!
//! Sources: `pg_waldump.c` (the form of a line), `timeline.c`.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tier0_core::words::{Lsn, Timeline};

use crate::command::{self, CommandError};
use crate::configure::make_private;
use crate::control::ClusterState;
use crate::deadline::Deadline;
use crate::durable;
use crate::history::Parting;
use crate::node::{Progress, Server};
use crate::trouble::{Attempt, Trouble};
use crate::wal;

use super::source::Source;

/// WAL past the fork.
#[derive(Debug, Clone)]
pub(crate) struct Surplus {
    /// How much.
    pub(crate) bytes: u64,
    /// Its segment files.
    files: Vec<PathBuf>,
}

impl Surplus {
    /// There is none.
    pub(crate) fn none() -> Self {
        Surplus { bytes: 0, files: Vec::new() }
    }
}

/// What was kept of it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// How much.
    pub(crate) bytes: u64,
    /// Where.
    pub(crate) at: Option<PathBuf>,
}

impl Kept {
    /// There was nothing to keep.
    pub(crate) fn nothing() -> Self {
        Kept { bytes: 0, at: None }
    }
}

impl Server {
    /// Where this node's history and the upstream's part.
    pub(crate) async fn parting(
        &self,
        source: &Source<'_>,
        deadline: Deadline,
    ) -> Attempt<Parting> {
        let control = self.control.read(&self.node).await;
        let control = control.map_err(|error| Trouble::failed(error.to_string()))?;
        // A server that crashed soon after its promotion has the older timeline in its control
        // file still.
        let timeline = self.newest_timeline_on_disk().max(control.timeline);
        let own = self.own_history(timeline)?;
        let parting = own.parting(&source.history(deadline).await?);
        let standby = self.node.paths.data.join("standby.signal").exists();
        match parting {
            // Two primaries on one timeline: files of the same name with different content.
            Parting::Same if !standby => Ok(Parting::Never),
            Parting::Same | Parting::At(..) | Parting::Never => Ok(parting),
        }
    }

    /// What is here past the fork, on the timeline that was left there or a later one of this
    /// node's own.
    pub(crate) async fn surplus(&self, common: Timeline, fork: Lsn) -> Attempt<Surplus> {
        let control = self.control.read(&self.node).await;
        let control = control.map_err(|error| Trouble::failed(error.to_string()))?;
        let own = self.newest_timeline_on_disk().max(control.timeline);
        let end = match (control.state, control.shutdown_checkpoint_end()) {
            (ClusterState::ShutDown, Some(end)) => end,
            (ClusterState::ShutDown, None)
            | (
                ClusterState::StartingUp
                | ClusterState::ShutDownInRecovery
                | ClusterState::ShuttingDown
                | ClusterState::InCrashRecovery
                | ClusterState::InArchiveRecovery
                | ClusterState::InProduction,
                _,
            ) => self.last_record_end(own, fork, control.segment).await?,
        };
        // What a standby has replayed it had, also where another stream was written over its WAL.
        let end = end.max(control.minimum_recovery);
        let bytes = end.ahead_of(fork);
        if bytes == 0 {
            return Ok(Surplus::none());
        }
        let wanted = |name: &str| {
            let (timeline, number) = wal::parse_segment_name(name, control.segment)?;
            let from = wal::segment_of(fork, control.segment);
            let to = wal::segment_of(Lsn::from_bytes(end.bytes() - 1), control.segment);
            Some(timeline >= common && (from..=to).contains(&number))
        };
        let directory = self.node.paths.data.join("pg_wal");
        let entries = std::fs::read_dir(&directory).map_err(Trouble::io(directory.display()))?;
        let mut files: Vec<_> = entries
            .flatten()
            .filter(|entry| {
                entry.file_name().to_str().is_some_and(|name| {
                    // History files say where the kept timelines began.
                    name.ends_with(".history") || wanted(name) == Some(true)
                })
            })
            .map(|entry| entry.path())
            .collect();
        files.sort();
        Ok(Surplus { bytes, files })
    }

    /// Where the last whole record at or after `from` ends; `from` itself if there is none. Where
    /// the WAL from there on was recycled already, the oldest that is left is begun with: it is
    /// past the fork all the same.
    async fn last_record_end(&self, timeline: Timeline, from: Lsn, segment: u64) -> Attempt<Lsn> {
        let directory = self.node.paths.data.join("pg_wal");
        let first = wal::segment_of(from, segment);
        let entries = std::fs::read_dir(&directory).map_err(Trouble::io(directory.display()))?;
        let oldest = entries
            .flatten()
            .filter_map(|entry| wal::parse_segment_name(entry.file_name().to_str()?, segment))
            .filter(|(its, number)| *its == timeline && *number >= first)
            .map(|(_, number)| number)
            .min();
        let begin = match oldest {
            Some(number) if number == first => from,
            Some(number) => Lsn::from_bytes(number.saturating_mul(segment)),
            None => return Ok(from),
        };
        let (timeline, start) = (timeline.to_string(), begin.to_string());
        let arguments: [&OsStr; 6] = [
            "--path".as_ref(),
            directory.as_ref(),
            "--timeline".as_ref(),
            timeline.as_ref(),
            "--start".as_ref(),
            start.as_ref(),
        ];
        let mut end = from;
        let program = self.node.program("pg_waldump");
        let read = command::run_with_lines(
            &program,
            &arguments,
            |line| end = record_end(line, segment).unwrap_or(end),
            |_| {},
        );
        match read.await {
            // It always ends with an error: at the end of WAL there is no valid record.
            Ok(()) | Err(CommandError::Ended { .. }) => Ok(end),
            Err(error @ CommandError::Run { .. }) => Err(Trouble::failed(error.to_string())),
        }
    }

    /// Copy the surplus to a directory beside the data. It is on disk when this returns.
    pub(crate) async fn keep(&self, surplus: &Surplus, progress: Progress<'_>) -> Attempt<Kept> {
        if surplus.bytes == 0 {
            return Ok(Kept::nothing());
        }
        let at = durable::beside(&self.node.paths.data, &format!(".diverged-{}", unix_seconds()));
        progress(format!("{} bytes diverged; kept at {}", surplus.bytes, at.display()));
        let (files, to) = (surplus.files.clone(), at.clone());
        durable::blocking(move || {
            make_private(&to)?;
            for file in &files {
                let Some(name) = file.file_name() else { continue };
                let copy = to.join(name);
                std::fs::copy(file, &copy)?;
                File::open(&copy)?.sync_all()?;
            }
            File::open(&to)?.sync_all()?;
            durable::sync_directory_of(&to)
        })
        .await
        .map_err(Trouble::io(at.display()))?;
        Ok(Kept { bytes: surplus.bytes, at: Some(at) })
    }
}

/// A name part that tells directories of the same kind apart.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The end of the record that a line of `pg_waldump` describes.
fn record_end(line: &str, segment: u64) -> Option<Lsn> {
    let (_, after) = line.split_once("len (rec/tot):")?;
    let (_, total) = after.split_once('/')?;
    let total: u64 = total.split(',').next()?.trim().parse().ok()?;
    let (_, start) = line.split_once(", lsn: ")?;
    let start: Lsn = start.split(',').next()?.trim().parse().ok()?;
    Some(wal::record_end(start, total, segment))
}

/// Used by the base backup to name what it replaces.
pub(crate) fn old_directory(data: &Path) -> PathBuf {
    durable::beside(data, &format!(".old-{}", unix_seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_pg_waldump() {
        let line = "rmgr: Heap        len (rec/tot):     59/  8123, tx:        737, \
                    lsn: 0/0301B678, prev 0/0301B640, desc: INSERT off 2 flags 0x00";
        let end = record_end(line, 16 << 20).unwrap();
        assert_eq!(end, wal::record_end("0/301B678".parse().unwrap(), 8123, 16 << 20));
        assert_eq!(record_end("pg_waldump: first record is after 0/1", 16 << 20), None);
    }
}
