//! The authority record as a row: its text, its checksum, and what may follow it.

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};
use tier0_core::record::{RECORD_FORMAT, Record};
use tier0_core::words::Heard;

use super::history;
use crate::StoreError;

/// A record as it is stored.
pub(super) struct Row {
    /// JSON.
    pub(super) body: String,
    /// SHA-256 of the body.
    pub(super) checksum: [u8; 32],
}

impl Row {
    fn of(record: &Record) -> Result<Row, StoreError> {
        let invalid = |problem| StoreError::Invalid { what: "authority record", problem };
        if record.format != RECORD_FORMAT {
            return Err(invalid(format!("its format is {}, not {RECORD_FORMAT}", record.format)));
        }
        let body = serde_json::to_string(record).map_err(|error| invalid(error.to_string()))?;
        let checksum = Sha256::digest(body.as_bytes()).into();
        Ok(Row { body, checksum })
    }

    /// The record, if the row is what was once written.
    pub(super) fn record(&self) -> Result<Record, StoreError> {
        let damaged = |what: &str| StoreError::Damaged { what: what.to_owned() };
        if <[u8; 32]>::from(Sha256::digest(self.body.as_bytes())) != self.checksum {
            return Err(damaged("the authority record does not match its checksum"));
        }
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        // The checksum fits, so what cannot be read was written by another version.
        let format: Format = serde_json::from_str(&self.body)
            .map_err(|_| damaged("the authority record says no format"))?;
        if format.format != RECORD_FORMAT {
            return Err(StoreError::UnknownFormat {
                what: "the authority record",
                found: u64::from(format.format),
                known: RECORD_FORMAT,
            });
        }
        serde_json::from_str(&self.body).map_err(|error| StoreError::Damaged {
            what: format!("the authority record cannot be read: {error}"),
        })
    }
}

pub(super) fn load(connection: &Connection) -> Result<Option<Record>, StoreError> {
    let row = connection
        .prepare_cached("SELECT body, checksum FROM record WHERE id = 1")
        .and_then(|mut statement| {
            statement
                .query_row([], |row| Ok(Row { body: row.get(0)?, checksum: row.get(1)? }))
                .optional()
        })
        .map_err(unreadable)?;
    row.map(|row| row.record()).transpose()
}

/// A row whose columns have other types than were written is as damaged as one with other bytes.
pub(super) fn unreadable(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        None => StoreError::Damaged { what: format!("a record's row cannot be read: {error}") },
        Some(_) => StoreError::access("read authority record")(error),
    }
}

/// Store the record and add it to the history.
pub(super) fn store(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let row = Row::of(record)?;
    let failed = StoreError::access("store authority record");
    connection
        .prepare_cached("INSERT OR REPLACE INTO record (id, body, checksum) VALUES (1, ?1, ?2)")
        .and_then(|mut statement| statement.execute((&row.body, &row.checksum)))
        .map_err(failed)?;
    history::add(connection, &row).map_err(failed)
}

/// What can be said of a successor by its names alone.
pub(super) fn check_names(expected: &Heard, next: &Record) -> Result<(), StoreError> {
    let problem = if next.lineage != expected.lineage {
        "it is of another lineage"
    } else if expected.revision.number().checked_add(1) != Some(next.revision.number()) {
        "its revision is not the next one"
    } else if next.epoch != expected.epoch
        && expected.epoch.number().checked_add(1) != Some(next.epoch.number())
    {
        "its epoch is neither the same nor the next one"
    } else {
        return Ok(());
    };
    Err(StoreError::NotASuccessor { expected: expected.clone(), next: next.heard(), problem })
}

/// What can be said of a successor only beside the record that it follows.
pub(super) fn check_successor(current: &Record, next: &Record) -> Result<(), StoreError> {
    let problem = if next.stack != current.stack {
        "it is of another stack"
    } else if next.writer != current.writer && next.epoch == current.epoch {
        "the writer changes and the epoch does not"
    } else {
        return Ok(());
    };
    Err(StoreError::NotASuccessor { expected: current.heard(), next: next.heard(), problem })
}
