//! The last rung: a new copy of everything, made beside the data directory and put in its place.
//!
//! Source: `pg_basebackup.c`. Its `-R` is not used: the configuration is written here.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use crate::base_directory::mark_standby;
use crate::command;
use crate::configure::make_private;
use crate::conninfo;
use crate::deadline::Deadline;
use crate::durable;
use crate::hba::Clients;
use crate::node::{Progress, Server};
use crate::trouble::{Attempt, Trouble};

use super::OldData;
use super::divergence::old_directory;
use super::source::Source;

/// How often the copy's progress is told.
const TELL: Duration = Duration::from_secs(1);

impl Server {
    /// Copy the source, put the copy in the data directory's place, and stream from it.
    pub(crate) async fn base_backup(
        &self,
        source: &Source<'_>,
        old: OldData,
        deadline: Deadline,
        progress: Progress<'_>,
    ) -> Attempt<()> {
        let paths = &self.node.paths;
        self.forget_membership().await?;
        let new = durable::beside(&paths.data, ".new");
        // What an earlier copy left is of no use: it was never whole.
        durable::remove_tree(&new).await.map_err(Trouble::io(new.display()))?;
        let parent = paths.data.parent().unwrap_or(std::path::Path::new("/"));
        make_private(parent).map_err(Trouble::io(parent.display()))?;
        // Writes the password file too, before anything needs it.
        self.prepare_streaming().await?;
        self.copy(source, &new, progress).await?;
        mark_standby(&new).await.map_err(Trouble::io("standby.signal"))?;
        self.write_configuration(&new, Clients::KeptOut, &self.standby_role(source)).await?;
        let replaced = old_directory(&paths.data);
        let had_data = paths.data.exists();
        if had_data {
            durable::rename(&paths.data, &replaced)
                .await
                .map_err(Trouble::io(replaced.display()))?;
        }
        durable::rename(&new, &paths.data).await.map_err(Trouble::io(paths.data.display()))?;
        for mark in [&paths.rewinding, &paths.initialising] {
            durable::remove(mark).await.map_err(Trouble::io(mark.display()))?;
        }
        match old {
            OldData::Keep if had_data => {
                progress(format!("the old data stays at {}", replaced.display()));
            }
            OldData::Keep => {}
            OldData::Discard => {
                durable::remove_tree(&replaced).await.map_err(Trouble::io(replaced.display()))?;
            }
        }
        progress("copied; starting as a standby".to_owned());
        self.start_streaming(source, deadline).await
    }

    async fn copy(
        &self,
        source: &Source<'_>,
        new: &std::path::Path,
        progress: Progress<'_>,
    ) -> Attempt<()> {
        progress("base backup: waiting for the upstream's checkpoint".to_owned());
        let conninfo = conninfo::streaming(&self.node, source.node, "tier0-base-backup");
        let slot = self.node.settings.node.slot_name();
        let arguments: [&OsStr; 11] = [
            "--pgdata".as_ref(),
            new.as_ref(),
            "--dbname".as_ref(),
            conninfo.as_ref(),
            "--slot".as_ref(),
            slot.as_ref(),
            "--wal-method=stream".as_ref(),
            "--checkpoint=fast".as_ref(),
            "--no-password".as_ref(),
            "--progress".as_ref(),
            "--label=tier0".as_ref(),
        ];
        let mut told = Instant::now();
        let program = self.node.program("pg_basebackup");
        let run = command::run_with_lines(
            &program,
            &arguments,
            |_| {},
            |line| {
                if told.elapsed() >= TELL {
                    told = Instant::now();
                    progress(format!("base backup: {}", line.trim()));
                }
            },
        );
        run.await.map_err(|error| Trouble::failed(error.to_string()))
    }
}
