//! Tokens: read from where the configuration says, compared in constant time.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TokenError(#[from] tier0_config::SecretError);

/// Read a token.
pub fn read_token(from: &tier0_config::SecretSource) -> Result<tier0_config::Secret, TokenError> {
    Ok(from.read()?)
}

/// Whether a presented token is this one. Hashing first makes the comparison's time independent of
/// where two tokens begin to differ, and of their lengths.
pub fn tokens_match(presented: &str, token: &tier0_config::Secret) -> bool {
    let presented = Sha256::digest(presented.as_bytes());
    let expected = Sha256::digest(token.expose().as_bytes());
    presented.as_slice().ct_eq(expected.as_slice()).into()
}
