//! The first rung: start as a standby and stream.

use crate::base_directory::mark_standby;
use crate::conf::RoleConf;
use crate::deadline::Deadline;
use crate::durable;
use crate::hba::Clients;
use crate::node::Server;
use crate::quote;
use crate::session::Session;
use crate::trouble::{Attempt, Trouble};

use super::source::Source;

impl Server {
    /// Start what is in the data directory as a standby; returns once it streams from the source
    /// on the source's timeline.
    pub(crate) async fn start_streaming(
        &self,
        source: &Source<'_>,
        deadline: Deadline,
    ) -> Attempt<()> {
        self.forget_membership().await?;
        let data = &self.node.paths.data;
        mark_standby(data).await.map_err(Trouble::io("standby.signal"))?;
        self.write_configuration(data, Clients::KeptOut, &self.standby_role(source)).await?;
        self.launch(deadline).await?;
        self.until_streaming(source, deadline).await?;
        let session = self.session(deadline).await?;
        self.keep_local_slots(&session, deadline).await;
        self.let_readers_in().await
    }

    /// Let clients read from this standby. Not before it streams: until then its data may end in
    /// something that no other node has, and that is about to be rewound. It cannot write, and a
    /// promotion finds the doors as they must be, with nothing to reload (P7).
    pub(crate) async fn let_readers_in(&self) -> Attempt<()> {
        match self.clients() {
            Clients::Admitted => Ok(()),
            Clients::KeptOut => self.open_doors().await,
        }
    }

    /// What `tier0.conf` says of a standby outside the takeover set.
    pub(crate) fn standby_role<'a>(&self, source: &Source<'a>) -> RoleConf<'a> {
        RoleConf::Standby { upstream: source.node, member: None }
    }

    /// From here the data is no membership any more (P2): it streams under the join name.
    pub(crate) async fn forget_membership(&self) -> Attempt<()> {
        self.forget_join().await?;
        let path = &self.node.paths.member;
        durable::remove(path).await.map_err(Trouble::io(path.display()))
    }

    /// Wait until WAL of the source's timeline arrives under the join name. The receiver starts only
    /// when all WAL that is here or in the archive is replayed. That may take long and gets no
    /// shorter by a restart or a new copy: the stream's limit counts from the last progress.
    pub(crate) async fn until_streaming(
        &self,
        source: &Source<'_>,
        deadline: Deadline,
    ) -> Attempt<()> {
        let name = self.node.settings.node.join_name();
        let session = self.session(deadline).await?;
        let patience = self.node.settings.stream_limit;
        let (mut replayed, mut until) = (None, deadline.at_most(patience));
        loop {
            let standby = self.standby(&session, deadline).await?;
            let streams = standby.stream.is_some_and(|stream| {
                stream.is_streaming_as(&name) && stream.timeline == source.timeline
            });
            if streams {
                return Ok(());
            }
            // Not part of the position: that may stand at what an earlier receiver brought.
            let look = "SELECT coalesce(pg_last_wal_replay_lsn()::text, '')";
            let now = session.value(look, deadline.left()).await?;
            if replayed.as_ref() != Some(&now) {
                (replayed, until) = (Some(now), deadline.at_most(patience));
            }
            if until.passed() {
                return Err(Trouble::unknown(format!(
                    "it does not stream timeline {} yet: {}",
                    source.timeline,
                    self.log_end()
                )));
            }
            self.pause().await;
        }
    }

    /// Keep a slot for every other node, for the time after a promotion. It reserves nothing while
    /// this is a standby: a reservation that nobody moves on would be lost by then. One that is
    /// left from the time as primary is made anew. Trouble is noted only: the slot is made again
    /// when that node follows.
    pub(crate) async fn keep_local_slots(&self, session: &Session, deadline: Deadline) {
        for (peer, _) in self.node.peers() {
            let slot = quote::literal(&peer.slot_name());
            let drop = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = {slot} AND NOT active AND restart_lsn IS NOT NULL"
            );
            let make = format!(
                "SELECT pg_create_physical_replication_slot({slot}) WHERE NOT EXISTS \
                 (SELECT FROM pg_replication_slots WHERE slot_name = {slot})"
            );
            for sql in [drop, make] {
                if let Err(error) = session.run(&sql, deadline.left()).await {
                    tracing::warn!(%peer, %error, "slot for the other node");
                }
            }
        }
    }
}
