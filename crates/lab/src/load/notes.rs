//! The ledger's side of HTTP traffic: one task writes what all devices' requests came to.

use anyhow::Result;
use tokio::sync::mpsc;

use crate::ledger::{Entry, Gap, Latencies, LedgerFile};

/// Something for the ledger.
#[derive(Debug)]
pub enum Note {
    /// A reading is acknowledged.
    Acknowledged(Entry),
    /// A reading was given up, and nobody knows.
    Unknown(Entry),
    /// An answer that nobody expected.
    Unexpected(String),
}

/// What was noted beside the file.
#[derive(Debug)]
pub struct Noted {
    /// From due to acknowledged.
    pub latencies: Latencies,
    /// The first answer that nobody expected.
    pub first_unexpected: Option<String>,
}

/// Write until the last sender is gone.
pub async fn keep(mut file: LedgerFile, mut notes: mpsc::UnboundedReceiver<Note>) -> Result<Noted> {
    let mut noted = Noted { latencies: Latencies::new()?, first_unexpected: None };
    while let Some(note) = notes.recv().await {
        match note {
            Note::Acknowledged(entry) => {
                file.acknowledged(entry)?;
                noted.latencies.record(Gap { due: entry.due, until: entry.at });
            }
            Note::Unknown(entry) => file.unknown(entry)?,
            Note::Unexpected(what) => {
                noted.first_unexpected.get_or_insert(what);
            }
        }
    }
    Ok(noted)
}
