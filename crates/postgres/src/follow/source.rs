//! The upstream as the node that follows it sees it: over a session of the replication role with
//! the database `postgres`, the same rights that `pg_rewind` uses.

use tier0_config::NodeSettings;
use tier0_core::words::{Lsn, NodeId, SystemId, Timeline};

use crate::deadline::Deadline;
use crate::history::History;
use crate::node::Server;
use crate::quote;
use crate::session::{Session, SessionError};
use crate::trouble::{Attempt, Trouble};

/// A primary to follow.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// Its settings.
    pub(crate) node: &'a NodeSettings,
    /// Its cluster.
    pub(crate) system: SystemId,
    /// The timeline it writes.
    pub(crate) timeline: Timeline,
    session: Session,
}

impl Server {
    /// Ask the upstream who it is. One that is in recovery cannot be followed yet.
    pub(crate) async fn source(
        &self,
        upstream: &NodeId,
        deadline: Deadline,
    ) -> Attempt<Source<'_>> {
        let Some((_, node)) = self.node.peers().find(|(id, _)| *id == upstream) else {
            return Err(Trouble::refused(
                "no-upstream",
                format!("{upstream} is not another node of this datastore"),
            ));
        };
        let limit = deadline.at_most(self.node.settings.stream_limit);
        let password = &self.node.settings.replication_password;
        let session = self
            .node
            .upstream(node, password, limit.left())
            .await
            .map_err(|error| Trouble::failed(format!("upstream {upstream}: {error}")))?;
        let row = session
            .row(
                "SELECT (SELECT system_identifier FROM pg_control_system()), \
                 CASE WHEN pg_is_in_recovery() THEN NULL \
                 ELSE pg_walfile_name(pg_current_wal_flush_lsn()) END",
                limit.left(),
            )
            .await?;
        let field = |at: usize| row.get(at).cloned().flatten();
        let system = SystemId(field(0).ok_or(SessionError::Form("no system identifier"))?);
        let Some(file) = field(1) else {
            return Err(Trouble::failed(format!("upstream {upstream} is not a primary")));
        };
        let timeline = file
            .get(..8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or(SessionError::Form("no timeline"))?;
        Ok(Source { node, system, timeline: Timeline(timeline), session })
    }
}

impl Source<'_> {
    /// See to it that the upstream keeps WAL for this node: a slot that reserves it from now on.
    /// A slot whose WAL was given up is made anew.
    pub(crate) async fn keep_slot(&self, slot: &str, deadline: Deadline) -> Attempt<()> {
        let name = quote::literal(slot);
        let look = format!(
            "SELECT coalesce(wal_status, '') FROM pg_replication_slots WHERE slot_name = {name}"
        );
        let rows = self.session.rows(&look, deadline.left()).await?;
        let status = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        match status.as_deref() {
            // Without a status it reserves nothing: it was made while the upstream was a standby.
            Some("lost" | "") => {
                let drop = format!("SELECT pg_drop_replication_slot({name})");
                self.session.run(&drop, deadline.left()).await?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let make = format!("SELECT pg_create_physical_replication_slot({name}, true)");
        Ok(self.session.run(&make, deadline.left()).await?)
    }

    /// The history of the upstream's timeline.
    pub(crate) async fn history(&self, deadline: Deadline) -> Attempt<History> {
        let text = if self.timeline == Timeline(1) {
            String::new()
        } else {
            let file = quote::literal(&format!("pg_wal/{}", History::file_name(self.timeline)));
            let read = format!("SELECT convert_from(pg_read_binary_file({file}), 'UTF8')");
            self.session.value(&read, deadline.left()).await?
        };
        History::parse(self.timeline, &text).map_err(|error| Trouble::failed(error.to_string()))
    }

    /// How far it has written. A standby on its timeline can have no more: only what is flushed is
    /// ever sent.
    pub(crate) async fn flushed(&self, deadline: Deadline) -> Attempt<Lsn> {
        let text = self.session.value("SELECT pg_current_wal_flush_lsn()", deadline.left()).await?;
        Ok(text.parse().map_err(|_| SessionError::Form("no position"))?)
    }

    /// Write a checkpoint there. Before it, `pg_rewind` would find the old timeline in its
    /// control file and say that nothing is to be done.
    pub(crate) async fn checkpoint(&self, deadline: Deadline) -> Attempt<()> {
        Ok(self.session.run("CHECKPOINT", deadline.left()).await?)
    }

    /// Whether it is still there: asked before data is given up because of it.
    pub(crate) async fn still_answers(&self, deadline: Deadline) -> Attempt<()> {
        match self.session.value("SELECT pg_is_in_recovery()", deadline.left()).await {
            Ok(recovery) if recovery == "f" => Ok(()),
            Ok(_) => Err(Trouble::failed("the upstream is not a primary any more")),
            Err(error) => Err(Trouble::failed(format!("the upstream is gone: {error}"))),
        }
    }
}
