//! What can go wrong with a store that is open, sorted by what the caller must do about it.

use tier0_core::words::Heard;

/// Why a call to a store failed.
///
/// Only [`StoreError::Unknown`] leaves open whether something was stored; after every other error
/// nothing was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no record to swap.
    #[error("the store holds no authority record yet")]
    NoRecord,
    /// The record that should be stored cannot follow the one it was made from.
    #[error("refuse to store {next} of lineage {} after {expected}: {problem}", next.lineage)]
    NotASuccessor {
        /// The record it was made from.
        expected: Heard,
        /// What it calls itself.
        next: Heard,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What is stored does not match its checksum or its shape.
    #[error(
        "the store is damaged: {what}; stop the orchestrator, keep a copy of what the store has, \
         then run `tier0 authority adopt`"
    )]
    Damaged {
        /// What does not fit.
        what: String,
    },
    /// What is stored was written by another version of tier0.
    #[error("{what} has format {found}, this build knows only {known}: use a matching tier0")]
    UnknownFormat {
        /// What was read.
        what: &'static str,
        /// Its format.
        found: u64,
        /// The format of this build.
        known: u32,
    },
    /// A value cannot be stored, whatever the state of the store.
    #[error("{what}: {problem}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The store could not be used; nothing was stored.
    #[error("{doing}")]
    Access {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody knows whether it was stored: load the record and look (R4).
    #[error("{doing}: whether it was stored is unknown")]
    Unknown {
        /// What was being done.
        doing: &'static str,
        /// Why nobody knows.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A write before this one ended unknown. What the file system shows may not be what is on the
    /// disk (a failed fsync drops the pages it could not write), so the store answers nothing more
    /// until it is opened again.
    #[error("an earlier write had no certain outcome; the store must be opened again")]
    Poisoned,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn access(
        doing: &'static str,
    ) -> impl Fn(rusqlite::Error) -> StoreError + Copy + use<> {
        move |error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                StoreError::Damaged { what: format!("{doing}: {error}") }
            }
            Some(_) | None => StoreError::Access { doing, source: Box::new(error) },
        }
    }
}
