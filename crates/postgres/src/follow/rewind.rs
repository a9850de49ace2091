//! The second rung: `pg_rewind`. A file beside the data directory says that one was begun; it goes
//! only when the data is whole and configured again, so a rewind that broke off is never started on
//! and never rewound again (its pages are of two histories), but replaced by a base backup.
//!
//! Source: `pg_rewind.c`. It recovers a crashed target itself, by a single-user server, and copies
//! the source's configuration files along.

use std::ffi::OsStr;

use crate::base_directory::mark_standby;
use crate::command;
use crate::conninfo;
use crate::deadline::Deadline;
use crate::durable;
use crate::hba::Clients;
use crate::marker::{self, Rewinding};
use crate::node::{Progress, Server};
use crate::trouble::{Attempt, Trouble};

use super::divergence::Kept;
use super::source::Source;

impl Server {
    /// Rewind to the source's history and stream from it.
    pub(crate) async fn rewind(
        &self,
        source: &Source<'_>,
        kept: &Kept,
        deadline: Deadline,
        progress: Progress<'_>,
    ) -> Attempt<()> {
        let paths = &self.node.paths;
        progress("checkpoint on the upstream, before the rewind".to_owned());
        source.checkpoint(deadline).await?;
        self.forget_membership().await?;
        // Its own settings must be whole and its own: the single-user server reads them, and the
        // restore command finds WAL that was recycled.
        let role = self.standby_role(source);
        self.write_configuration(&paths.data, Clients::KeptOut, &role).await?;
        // Its single-user server refuses as well while an ended postmaster was not taken off.
        self.until_nothing_is_left(deadline).await?;
        let begun = Rewinding { diverged_bytes: kept.bytes, kept_at: kept.at.clone() };
        marker::write(&paths.rewinding, &begun)
            .await
            .map_err(|error| Trouble::failed(error.to_string()))?;
        // A single-user server refuses to recover a standby.
        let signal = paths.data.join("standby.signal");
        durable::remove(&signal).await.map_err(Trouble::io(signal.display()))?;
        progress("rewinding".to_owned());
        let server = format!("--source-server={}", conninfo::rewinding(&self.node, source.node));
        let mut arguments: Vec<&OsStr> = vec![
            "--target-pgdata".as_ref(),
            paths.data.as_ref(),
            server.as_ref(),
            "--restore-target-wal".as_ref(),
            "--progress".as_ref(),
        ];
        // Its single-user server would look for the configuration in the data directory.
        let file = self.node.config_outside().map(|directory| directory.join("postgresql.conf"));
        if let Some(file) = &file {
            arguments.extend(["--config-file".as_ref(), file.as_os_str()]);
        }
        let program = self.node.program("pg_rewind");
        let run = command::run_with_lines(
            &program,
            &arguments,
            |_| {},
            |line| progress(format!("pg_rewind: {line}")),
        );
        run.await.map_err(|error| Trouble::failed(error.to_string()))?;
        mark_standby(&paths.data).await.map_err(Trouble::io("standby.signal"))?;
        self.write_configuration(&paths.data, Clients::KeptOut, &role).await?;
        durable::remove(&paths.rewinding).await.map_err(Trouble::io(paths.rewinding.display()))?;
        progress("rewound; starting as a standby".to_owned());
        self.start_streaming(source, deadline).await
    }
}
