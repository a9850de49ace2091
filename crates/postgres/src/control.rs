//! What a stopped server's control file says, by way of `pg_controldata`.
//!
//! Sources: `pg_controldata.c` (labels and state names, translated unless `LC_ALL=C`),
//! `pg_control.h` (`DBState`).

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tier0_core::words::{Lsn, SystemId, Timeline};

use crate::command::{self, CommandError};
use crate::settings::Checked;
use crate::wal;

/// `DBState`: what the server was when it last wrote its control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterState {
    /// Being made.
    StartingUp,
    /// A primary that wrote its shutdown checkpoint.
    ShutDown,
    /// A standby that was stopped.
    ShutDownInRecovery,
    /// Was writing its shutdown checkpoint.
    ShuttingDown,
    /// Was recovering from a crash.
    InCrashRecovery,
    /// A standby that runs or crashed.
    InArchiveRecovery,
    /// A primary that runs or crashed.
    InProduction,
}

impl ClusterState {
    /// Whether the last stop was clean.
    pub(crate) fn is_clean(self) -> bool {
        match self {
            ClusterState::ShutDown | ClusterState::ShutDownInRecovery => true,
            ClusterState::StartingUp
            | ClusterState::ShuttingDown
            | ClusterState::InCrashRecovery
            | ClusterState::InArchiveRecovery
            | ClusterState::InProduction => false,
        }
    }
}

/// The fields of the control file that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlData {
    pub(crate) state: ClusterState,
    pub(crate) system: SystemId,
    /// Where the latest checkpoint record begins.
    pub(crate) checkpoint: Lsn,
    /// The timeline of that checkpoint.
    pub(crate) timeline: Timeline,
    /// Up to where a standby must replay before it is consistent; zero on a primary.
    pub(crate) minimum_recovery: Lsn,
    /// Bytes of a WAL segment.
    pub(crate) segment: u64,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// The program did not do its work.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file cannot be looked at.
    #[error("control file: {0}")]
    File(#[from] io::Error),
    /// Its output lacks something.
    #[error("pg_controldata: no usable '{0}'")]
    Missing(&'static str),
}

impl ControlData {
    /// Where the shutdown checkpoint of a primary ends: the last byte it ever wrote.
    pub(crate) fn shutdown_checkpoint_end(&self) -> Option<Lsn> {
        match self.state {
            ClusterState::ShutDown => {
                Some(wal::record_end(self.checkpoint, wal::CHECKPOINT_RECORD, self.segment))
            }
            ClusterState::StartingUp
            | ClusterState::ShutDownInRecovery
            | ClusterState::ShuttingDown
            | ClusterState::InCrashRecovery
            | ClusterState::InArchiveRecovery
            | ClusterState::InProduction => None,
        }
    }

    fn parse(text: &str) -> Result<Self, ControlError> {
        let field = |label: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(label)?.strip_prefix(':'))
                .map(str::trim)
                .ok_or(ControlError::Missing(label))
        };
        let lsn = |label| field(label)?.parse::<Lsn>().map_err(|_| ControlError::Missing(label));
        let number = |label| field(label)?.parse::<u64>().map_err(|_| ControlError::Missing(label));
        let state = match field("Database cluster state")? {
            "starting up" => ClusterState::StartingUp,
            "shut down" => ClusterState::ShutDown,
            "shut down in recovery" => ClusterState::ShutDownInRecovery,
            "shutting down" => ClusterState::ShuttingDown,
            "in crash recovery" => ClusterState::InCrashRecovery,
            "in archive recovery" => ClusterState::InArchiveRecovery,
            "in production" => ClusterState::InProduction,
            _ => return Err(ControlError::Missing("Database cluster state")),
        };
        let segment = number("Bytes per WAL segment")?;
        if number("WAL block size")? != wal::PAGE {
            return Err(ControlError::Missing("WAL block size"));
        }
        if !segment.is_power_of_two() || !((1 << 20)..=(1 << 30)).contains(&segment) {
            return Err(ControlError::Missing("Bytes per WAL segment"));
        }
        let timeline = number("Latest checkpoint's TimeLineID")?;
        Ok(ControlData {
            state,
            system: SystemId(field("Database system identifier")?.to_owned()),
            checkpoint: lsn("Latest checkpoint location")?,
            timeline: Timeline(
                u32::try_from(timeline)
                    .map_err(|_| ControlError::Missing("Latest checkpoint's TimeLineID"))?,
            ),
            minimum_recovery: lsn("Minimum recovery ending location")?,
            segment,
        })
    }
}

/// Whether the control file of a server that is being stopped says that it is shut down: no
/// backend is left, the shutdown checkpoint is written, and only WAL senders and the archiver
/// finish (`postmaster.c` `PM_SHUTDOWN_2`). Reads the bytes of `ControlFileData.state` alone, which
/// are in one place from PostgreSQL 9.4 to 18; positions are taken from `pg_controldata`, which
/// checks the sum.
pub(crate) fn is_shut_down(data: &Path) -> bool {
    use std::io::Read;
    /// After `system_identifier` 8, `pg_control_version` 4 and `catalog_version_no` 4.
    const STATE: usize = 16;
    /// `DB_SHUTDOWNED` and `DB_SHUTDOWNED_IN_RECOVERY` of `DBState`.
    const SHUT_DOWN: [u32; 2] = [1, 2];
    let mut bytes = [0; STATE + 4];
    let read = std::fs::File::open(data.join("global/pg_control"))
        .and_then(|mut file| file.read_exact(&mut bytes));
    let state = [bytes[STATE], bytes[STATE + 1], bytes[STATE + 2], bytes[STATE + 3]];
    read.is_ok() && SHUT_DOWN.contains(&u32::from_ne_bytes(state))
}

/// Reads the control file, and remembers it as long as the file does not change.
#[derive(Debug, Default)]
pub(crate) struct ControlReader {
    last: Mutex<Option<(SystemTime, ControlData)>>,
}

impl ControlReader {
    /// What the control file says now.
    pub(crate) async fn read(&self, node: &Checked) -> Result<ControlData, ControlError> {
        let changed = std::fs::metadata(node.paths.data.join("global/pg_control"))?.modified()?;
        if let Some((at, data)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && *at == changed
        {
            return Ok(data.clone());
        }
        let output = command::run(
            &node.program("pg_controldata"),
            &["-D".as_ref(), node.paths.data.as_ref()],
        )
        .await?;
        let data = ControlData::parse(&output)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((changed, data.clone()));
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
pg_control version number:            1300
Database system identifier:           7412345678901234567
Database cluster state:               shut down
Latest checkpoint location:           0/1529E20
Latest checkpoint's REDO location:    0/1529E20
Latest checkpoint's TimeLineID:       3
Minimum recovery ending location:     0/0
WAL block size:                       8192
Bytes per WAL segment:                16777216
";

    #[test]
    fn fields_are_read() {
        let data = ControlData::parse(OUTPUT).unwrap();
        assert_eq!(data.system.0, "7412345678901234567");
        assert_eq!(data.timeline, Timeline(3));
        assert_eq!(data.shutdown_checkpoint_end(), Some("0/1529E98".parse().unwrap()));
    }

    #[test]
    fn a_crashed_server_has_no_shutdown_checkpoint() {
        let data = ControlData::parse(&OUTPUT.replace("shut down", "in production")).unwrap();
        assert_eq!(data.shutdown_checkpoint_end(), None);
        assert!(!data.state.is_clean());
    }

    #[test]
    fn an_output_without_a_field_or_with_an_unknown_state_is_refused() {
        for label in OUTPUT.lines().skip(1).filter(|line| !line.contains("REDO")) {
            let without = OUTPUT.replace(label, "");
            assert!(ControlData::parse(&without).is_err(), "without {label}");
        }
        assert!(ControlData::parse(&OUTPUT.replace("shut down", "heruntergefahren")).is_err());
    }
}
