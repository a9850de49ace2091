//! Past records, for people who ask how it came to be what it is.

use rusqlite::Connection;
use tier0_core::words::WallMillis;

use super::record::{Row, unreadable};
use crate::authority::RECORDS_KEPT;
use crate::{StoreError, StoredRecord};

/// Add a record and forget the one that is too old.
pub(super) fn add(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO record_history (at, body, checksum) \
             VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER), ?1, ?2)",
        )?
        .execute((&row.body, &row.checksum))?;
    let newest = connection.last_insert_rowid();
    connection
        .prepare_cached("DELETE FROM record_history WHERE number <= ?1")?
        .execute([newest - i64::from(RECORDS_KEPT)])?;
    Ok(())
}

/// The newest of them, the newest first.
pub(super) fn newest(connection: &Connection, limit: u32) -> Result<Vec<StoredRecord>, StoreError> {
    let rows: Vec<(i64, Row)> = connection
        .prepare_cached(
            "SELECT at, body, checksum FROM record_history ORDER BY number DESC LIMIT ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_map([limit], |row| {
                    Ok((row.get(0)?, Row { body: row.get(1)?, checksum: row.get(2)? }))
                })?
                .collect()
        })
        .map_err(unreadable)?;
    rows.iter()
        .map(|(at, row)| Ok(StoredRecord { at: WallMillis(*at), record: row.record()? }))
        .collect()
}
