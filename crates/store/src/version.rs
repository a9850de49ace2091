//! Journal entries and summaries as text: JSON with an explicit version, so that a later build
//! knows what it reads, and this one refuses what it does not know.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// The version of entries and summaries that this build writes and reads.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    content: T,
}

/// The text for a value.
pub(crate) fn to_text<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(&Versioned { version: VERSION, content: value })
        .map_err(|error| StoreError::Invalid { what, problem: error.to_string() })
}

/// The value of a text.
pub(crate) fn from_text<T: DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged {
        what: format!("{what} cannot be read: {error}"),
    };
    // In two steps, so that a text of another version is called that, not damaged.
    let read: Versioned<serde_json::Value> = serde_json::from_str(text).map_err(damaged)?;
    if read.version != VERSION {
        let found = u64::from(read.version);
        return Err(StoreError::UnknownFormat { what, found, known: VERSION });
    }
    serde_json::from_value(read.content).map_err(damaged)
}
