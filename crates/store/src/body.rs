//! The authority record as text, whichever store it lies in: JSON that says its format, beside which
//! a store keeps a checksum.

use sha2::{Digest, Sha256};
use tier0_core::record::{RECORD_FORMAT, Record};

use crate::StoreError;

/// The record's text; only of the format that this build knows.
pub(crate) fn write(record: &Record) -> Result<String, StoreError> {
    let invalid = |problem| StoreError::Invalid { what: "authority record", problem };
    if record.format != RECORD_FORMAT {
        return Err(invalid(format!("its format is {}, not {RECORD_FORMAT}", record.format)));
    }
    serde_json::to_string(record).map_err(|error| invalid(error.to_string()))
}

/// SHA-256.
pub(crate) fn checksum(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// What to say of a record whose checksum does not fit.
pub(crate) fn does_not_match() -> StoreError {
    StoreError::Damaged { what: "the authority record does not match its checksum".to_owned() }
}

/// The record of a text whose checksum was found to fit.
pub(crate) fn read(text: &str) -> Result<Record, StoreError> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    // The checksum fits, so what cannot be read was written by another version.
    let format: Format = serde_json::from_str(text).map_err(|_| StoreError::Damaged {
        what: "the authority record says no format".to_owned(),
    })?;
    if format.format != RECORD_FORMAT {
        return Err(StoreError::UnknownFormat {
            what: "the authority record",
            found: u64::from(format.format),
            known: RECORD_FORMAT,
        });
    }
    serde_json::from_str(text).map_err(|error| StoreError::Damaged {
        what: format!("the authority record cannot be read: {error}"),
    })
}
