//! How parts of a world, and what befalls it, are told from others in no time.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::decisions::digest;

/// Something with a digest, so that it is told from others in no time.
#[derive(Debug, Clone)]
pub struct Known<T> {
    pub is: Arc<T>,
    pub digest: u128,
}

impl<T: std::fmt::Debug> Known<T> {
    pub fn new(is: T) -> Known<T> {
        let digest = digest(&is);
        Known { is: Arc::new(is), digest }
    }
}

impl<T> PartialEq for Known<T> {
    fn eq(&self, other: &Known<T>) -> bool {
        self.digest == other.digest
    }
}

impl<T> Hash for Known<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// FNV-1a of 128 bits: wide enough that marks of different things do not meet.
pub struct Marks(u128);

const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;

const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

impl Marks {
    pub fn new() -> Marks {
        Marks(FNV_BASIS)
    }

    pub fn mark(self) -> u128 {
        self.0
    }
}

impl Hasher for Marks {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn finish(&self) -> u64 {
        (self.0 >> 64) as u64 ^ self.0 as u64
    }
}
