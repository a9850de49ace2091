//! The record as a value: a first line with a checksum over all that follows, when it was stored and
//! by which write, then the record's text. What a person sees who asks etcd for the key.

use std::fmt::Write;

use tier0_core::record::Record;
use tier0_core::words::WallMillis;

use super::write_id::WriteId;
use crate::{StoreError, StoredRecord, body};

/// The value for a record.
pub(super) fn seal(record: &Record, at: WallMillis, write: &WriteId) -> Result<String, StoreError> {
    let covered = format!("{} {write}\n{}", at.0, body::write(record)?);
    Ok(format!("{} {covered}", hexadecimal(&body::checksum(&covered))))
}

/// The record of a value, if it is what was once written.
pub(super) fn open(value: &str) -> Result<StoredRecord, StoreError> {
    let (checksum, covered) = value.split_once(' ').ok_or_else(body::does_not_match)?;
    if checksum != hexadecimal(&body::checksum(covered)) {
        return Err(body::does_not_match());
    }
    let unreadable =
        || StoreError::Damaged { what: "the authority record's first line".to_owned() };
    let (line, text) = covered.split_once('\n').ok_or_else(unreadable)?;
    let at = line.split(' ').next().and_then(|at| at.parse().ok()).ok_or_else(unreadable)?;
    Ok(StoredRecord { at: WallMillis(at), record: body::read(text)? })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
