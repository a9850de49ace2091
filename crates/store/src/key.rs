//! What can be an idempotency key, whichever store remembers it.

use crate::StoreError;

/// The longest key, in bytes: what a client said, and what it was said about.
const LONGEST: usize = 500;

/// Whether a text can be a key.
pub(crate) fn check(key: &str) -> Result<(), StoreError> {
    let invalid = |problem: String| Err(StoreError::Invalid { what: "idempotency key", problem });
    if key.is_empty() {
        return invalid("it is empty".to_owned());
    }
    if key.len() > LONGEST {
        return invalid(format!("it has {} bytes, {LONGEST} are allowed", key.len()));
    }
    Ok(())
}
