//! The authority record as a row: its text and its checksum.

use rusqlite::{Connection, OptionalExtension};
use tier0_core::record::Record;

use super::history;
use crate::{StoreError, body};

/// A record as it is stored.
pub(super) struct Row {
    /// JSON.
    pub(super) body: String,
    /// SHA-256 of the body.
    pub(super) checksum: [u8; 32],
}

impl Row {
    fn of(record: &Record) -> Result<Row, StoreError> {
        let body = body::write(record)?;
        let checksum = body::checksum(&body);
        Ok(Row { body, checksum })
    }

    /// The record, if the row is what was once written.
    pub(super) fn record(&self) -> Result<Record, StoreError> {
        if body::checksum(&self.body) != self.checksum {
            return Err(body::does_not_match());
        }
        body::read(&self.body)
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
