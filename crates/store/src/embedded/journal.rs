//! Operations and their entries as rows.

use rusqlite::{Connection, OptionalExtension, Params};
use tier0_core::words::OperationId;

use crate::authority::OPERATIONS_KEPT;
use crate::version::{from_text, to_text};
use crate::{JournalBatch, JournalEntry, NewEntry, OperationResult, OperationSummary, StoreError};

/// Write a batch inside a transaction that the caller commits.
pub(super) fn write(connection: &Connection, batch: &JournalBatch) -> Result<(), StoreError> {
    if let Some(summary) = &batch.summary {
        write_summary(connection, summary)?;
    }
    for entry in &batch.entries {
        let body = to_text("journal entry", entry)?;
        run(
            connection,
            "INSERT INTO journal (operation, body) VALUES (?1, ?2)",
            (entry.operation.as_str(), &body),
        )?;
    }
    Ok(())
}

fn write_summary(connection: &Connection, summary: &OperationSummary) -> Result<(), StoreError> {
    let body = to_text("operation", summary)?;
    let running = summary.result == OperationResult::Running;
    let updated = run(
        connection,
        "UPDATE operation SET running = ?2, body = ?3 WHERE id = ?1",
        (summary.id.as_str(), running, &body),
    )?;
    if updated == 1 {
        return Ok(());
    }
    run(
        connection,
        "INSERT INTO operation (id, running, body) VALUES (?1, ?2, ?3)",
        (summary.id.as_str(), running, &body),
    )?;
    let oldest = connection.last_insert_rowid() - i64::from(OPERATIONS_KEPT);
    run(
        connection,
        "DELETE FROM journal WHERE operation IN \
         (SELECT id FROM operation WHERE number <= ?1 AND NOT running)",
        [oldest],
    )?;
    run(connection, "DELETE FROM operation WHERE number <= ?1 AND NOT running", [oldest])?;
    Ok(())
}

fn run(
    connection: &Connection,
    statement: &'static str,
    parameters: impl Params,
) -> Result<usize, StoreError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute(parameters))
        .map_err(StoreError::access("write journal"))
}

/// Operations, the newest first.
pub(super) fn operations(
    connection: &Connection,
    limit: u32,
    before: Option<&OperationId>,
) -> Result<Vec<OperationSummary>, StoreError> {
    let failed = StoreError::access("list operations");
    let below: i64 = match before {
        None => i64::MAX,
        Some(id) => connection
            .prepare_cached("SELECT number FROM operation WHERE id = ?1")
            .and_then(|mut statement| {
                statement.query_row([id.as_str()], |row| row.get(0)).optional()
            })
            .map_err(failed)?
            .unwrap_or(0),
    };
    let bodies: Vec<String> = connection
        .prepare_cached(
            "SELECT body FROM operation WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
        )
        .and_then(|mut statement| statement.query_map((below, limit), |row| row.get(0))?.collect())
        .map_err(failed)?;
    bodies.iter().map(|body| from_text("operation", body)).collect()
}

/// One operation with its entries, the oldest first.
pub(super) fn operation(
    connection: &Connection,
    id: &OperationId,
) -> Result<Option<(OperationSummary, Vec<JournalEntry>)>, StoreError> {
    let failed = StoreError::access("read operation");
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM operation WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id.as_str()], |row| row.get(0)).optional())
        .map_err(failed)?;
    let Some(body) = body else { return Ok(None) };
    let rows: Vec<(i64, String)> = connection
        .prepare_cached("SELECT sequence, body FROM journal WHERE operation = ?1 ORDER BY sequence")
        .and_then(|mut statement| {
            statement.query_map([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .map_err(failed)?;
    let entries = rows
        .iter()
        .map(|(sequence, body)| {
            let new: NewEntry = from_text("journal entry", body)?;
            // SQLite numbers from 1 upwards.
            Ok(JournalEntry { sequence: sequence.unsigned_abs(), new })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(Some((from_text("operation", &body)?, entries)))
}
