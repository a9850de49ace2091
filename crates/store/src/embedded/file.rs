//! The SQLite file: how it is opened, what is in it, and how it is judged to be sound.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::OpenError;

/// The file's name.
pub(super) const NAME: &str = "store.db";

/// Marks a SQLite file as ours: "tr0s".
const APPLICATION: i64 = 0x7472_3073;

/// The version of the tables that this build makes and knows.
const SCHEMA: i64 = 1;

/// The oldest SQLite without the bug that loses commits when a WAL is reset during a checkpoint.
const OLDEST_SQLITE: i32 = 3_051_003;

/// The tables, exactly as SQLite keeps their text.
const TABLES: [&str; 6] = [
    // One row: the authority record. The checksum is the SHA-256 of the body.
    "CREATE TABLE record (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL, \
     checksum BLOB NOT NULL)",
    "CREATE TABLE record_history (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, \
     body TEXT NOT NULL, checksum BLOB NOT NULL)",
    // Numbered in the order of acceptance; the body is a versioned summary.
    "CREATE TABLE operation (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, \
     running INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE journal (sequence INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, \
     body TEXT NOT NULL)",
    "CREATE INDEX journal_of_operation ON journal (operation, sequence)",
    "CREATE TABLE idempotency_key (key TEXT PRIMARY KEY, operation TEXT NOT NULL, \
     at INTEGER NOT NULL) WITHOUT ROWID",
];

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// There is nothing in it: it was never ours, or it was emptied.
    Nothing,
    /// Our tables.
    Ours,
}

/// Open the file, or begin an empty one, and find out what is in it. Writes no tables.
pub(super) fn open(path: &Path) -> Result<(Connection, Contents), OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError::OldSqlite { version: rusqlite::version() });
    }
    let failed = |error| classify(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(failed)?;
    // A file that is refused must stay as it was found, and closing it would fold in its WAL.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    set(&connection, "cell_size_check", "ON").map_err(failed)?;
    // Before the first look at the file, or there would be a shared-memory file.
    set(&connection, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    set(&connection, "synchronous", "FULL").map_err(failed)?;
    // A checkpoint inside a commit costs milliseconds. Idle moments take care of it; this is for
    // a store that has none (16 MiB of WAL).
    set(&connection, "wal_autocheckpoint", "4000").map_err(failed)?;

    let application = number(&connection, "application_id").map_err(failed)?;
    let schema = number(&connection, "user_version").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application == 0 && schema == 0 && tables == 0 {
        return Ok((connection, Contents::Nothing));
    }
    if application != APPLICATION {
        return Err(OpenError::damaged(path, "it is not a store of tier0"));
    }
    if schema != SCHEMA {
        return Err(OpenError::UnknownVersion {
            path: path.to_owned(),
            found: schema,
            known: SCHEMA,
        });
    }
    verify(&connection, path)?;
    use_wal(&connection, path)?;
    Ok((connection, Contents::Ours))
}

/// Make the tables in an empty file, all of them or none.
pub(super) fn make_tables(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    use_wal(connection, path)?;
    let failed = |error| classify(path, error);
    let transaction = connection.transaction().map_err(failed)?;
    for table in TABLES {
        transaction.execute(table, []).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", SCHEMA).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// The file was accepted: fold the WAL into it when it is closed.
pub(super) fn tidy_on_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(|_| ())
}

/// Move what is in the WAL into the file, without waiting for anything.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

fn use_wal(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|error| classify(path, error))?;
    if mode == "wal" {
        Ok(())
    } else {
        Err(OpenError::damaged(path, &format!("journal mode is {mode}, it cannot be set to wal")))
    }
}

/// Every page is where it belongs and every index says what its table says; the tables are ours.
/// The contents of rows are not covered: the record has its own checksum.
fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| classify(path, error);
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(OpenError::damaged(path, &verdict));
    }
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY rowid")
        .map_err(failed)?;
    let found: Vec<String> =
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
    if found != TABLES {
        return Err(OpenError::damaged(path, "its tables are not the ones that tier0 made"));
    }
    Ok(())
}

fn set(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    // Some of these answer with a row and some do not.
    connection.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        other => Err(other),
    })
}

fn number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// While a file is being judged, every answer that is not plainly the environment's fault is the
/// file's.
pub(super) fn classify(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked,
        ) => OpenError::Sqlite { path: path.to_owned(), source: error },
        Some(_) | None => OpenError::damaged(path, &error.to_string()),
    }
}
