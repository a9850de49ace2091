//! Idempotency keys: which operation a request started, so that asking twice starts one.

use rusqlite::{Connection, OptionalExtension};
use tier0_core::words::{OperationId, WallMillis};

use crate::{KEY_LIFE_MILLIS, StoreError};

/// The operation that the key started before, or nothing and it is remembered now.
pub(super) fn remember(
    connection: &Connection,
    key: &str,
    operation: &OperationId,
    at: WallMillis,
) -> Result<Option<OperationId>, StoreError> {
    let failed = StoreError::access("remember idempotency key");
    connection
        .prepare_cached("DELETE FROM idempotency_key WHERE at <= ?1")
        .and_then(|mut statement| statement.execute([at.0.saturating_sub(KEY_LIFE_MILLIS)]))
        .map_err(failed)?;
    let known: Option<String> = connection
        .prepare_cached("SELECT operation FROM idempotency_key WHERE key = ?1")
        .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
        .map_err(failed)?;
    if let Some(known) = known {
        let known = known.parse().map_err(|error| StoreError::Damaged {
            what: format!("an idempotency key's operation: {error}"),
        })?;
        return Ok(Some(known));
    }
    connection
        .prepare_cached("INSERT INTO idempotency_key (key, operation, at) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((key, operation.as_str(), at.0)))
        .map_err(failed)?;
    Ok(None)
}
