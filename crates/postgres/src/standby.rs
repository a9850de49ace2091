//! Where a server stands in the WAL, primary or standby, with the identity of the stream.
//!
//! Sources: `xlogfuncs.c`, `walreceiver.c` (`pg_stat_get_wal_receiver`), `walreceiverfuncs.c`
//! (`RequestXLogStreaming`).

use tier0_core::words::{Lsn, SystemId, Timeline, WalPosition};

use crate::conninfo;
use crate::deadline::Deadline;
use crate::node::Server;
use crate::session::{Session, SessionError};
use crate::trouble::{Attempt, Trouble};
use crate::wal;

/// A running standby's place and stream.
#[derive(Debug, Clone)]
pub(crate) struct Standby {
    /// Up to where it has the WAL on disk.
    pub(crate) position: WalPosition,
    /// Its stream, while there is a receiver.
    pub(crate) stream: Option<Stream>,
}

/// The stream into a standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    /// `status` of the receiver; only in `streaming` WAL arrives.
    pub(crate) status: String,
    /// The timeline it receives.
    pub(crate) timeline: Timeline,
    /// What the standby calls itself.
    pub(crate) name: Option<String>,
    /// Host and port of its upstream.
    pub(crate) upstream: Option<(String, String)>,
}

impl Stream {
    /// Reads the three columns of the receiver's view.
    pub(crate) fn read(status: &str, timeline: &str, conninfo: &str) -> Option<Self> {
        let values = conninfo::parse(conninfo)?;
        let upstream = match (values.get("host"), values.get("port")) {
            (Some(host), Some(port)) => Some((host.clone(), port.clone())),
            (None, _) | (_, None) => None,
        };
        Some(Stream {
            status: status.to_owned(),
            timeline: Timeline(timeline.parse().ok()?),
            name: values.get("application_name").cloned(),
            upstream,
        })
    }

    /// Whether WAL arrives under this name.
    pub(crate) fn is_streaming_as(&self, name: &str) -> bool {
        self.status == "streaming" && self.name.as_deref() == Some(name)
    }
}

/// A server's place, with its role.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A primary, flushed up to here.
    Primary(WalPosition),
    /// A standby.
    Standby(Standby),
}

const SQL: &str = "SELECT pg_is_in_recovery(), \
    (SELECT system_identifier FROM pg_control_system()), \
    CASE WHEN pg_is_in_recovery() THEN NULL \
         ELSE pg_walfile_name(pg_current_wal_flush_lsn()) END, \
    CASE WHEN pg_is_in_recovery() \
         THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
         ELSE pg_current_wal_flush_lsn() END, \
    (SELECT timeline_id FROM pg_control_checkpoint()), \
    r.status, r.received_tli, r.conninfo \
    FROM (SELECT) one LEFT JOIN pg_stat_get_wal_receiver() r ON r.pid IS NOT NULL";

impl Server {
    /// Where the server stands.
    pub(crate) async fn place(&self, session: &Session, deadline: Deadline) -> Attempt<Place> {
        let row = session.row(SQL, deadline.left()).await?;
        let field = |at: usize| row.get(at).cloned().flatten();
        let form = SessionError::Form;
        let system = SystemId(field(1).ok_or(form("no system identifier"))?);
        let lsn = field(3).and_then(|text| text.parse::<Lsn>().ok()).ok_or(form("no position"))?;
        if field(0).as_deref() == Some("f") {
            let timeline = field(2)
                .and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok())
                .ok_or(form("no timeline"))?;
            let position = WalPosition { system, timeline: Timeline(timeline), lsn };
            return Ok(Place::Primary(position));
        }
        let stream = match (field(5), field(6), field(7)) {
            (Some(status), Some(timeline), Some(conninfo)) => {
                Stream::read(&status, &timeline, &conninfo)
            }
            (None, _, _) | (_, None, _) | (_, _, None) => None,
        };
        let checkpoint: u32 =
            field(4).and_then(|text| text.parse().ok()).ok_or(form("no checkpoint timeline"))?;
        let timeline = match &stream {
            Some(stream) if stream.status == "streaming" => stream.timeline,
            // Without a stream no view says which timeline was received: the files do.
            Some(_) | None => self.newest_timeline_on_disk().max(Timeline(checkpoint)),
        };
        let position = WalPosition { system, timeline, lsn };
        Ok(Place::Standby(Standby { position, stream }))
    }

    /// Where a standby stands; a primary is refused.
    pub(crate) async fn standby(&self, session: &Session, deadline: Deadline) -> Attempt<Standby> {
        match self.place(session, deadline).await? {
            Place::Standby(standby) => Ok(standby),
            Place::Primary(position) => Err(Trouble::refused(
                "not-a-standby",
                format!("this server is a primary at {position}"),
            )),
        }
    }

    /// Where a primary stands; a standby is refused.
    pub(crate) async fn primary(
        &self,
        session: &Session,
        deadline: Deadline,
    ) -> Attempt<WalPosition> {
        match self.place(session, deadline).await? {
            Place::Primary(position) => Ok(position),
            Place::Standby(standby) => Err(Trouble::refused(
                "not-a-primary",
                format!("this server is a standby at {}", standby.position),
            )),
        }
    }

    /// The newest timeline that has a WAL file here. A file is made only when the first byte of
    /// its timeline arrives, so none is ahead of what was received.
    pub(crate) fn newest_timeline_on_disk(&self) -> Timeline {
        let names = std::fs::read_dir(self.node.paths.data.join("pg_wal"))
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| {
                        // Only the timeline is used, so the segment size does not matter.
                        wal::parse_segment_name(entry.file_name().to_str()?, 16 << 20)
                    })
                    .map(|(timeline, _)| timeline)
                    .max()
            })
            .ok()
            .flatten();
        names.unwrap_or(Timeline(0))
    }
}
