//! Why an order did not end in "done", kept in the three kinds that must not be confused (R5).
//!
//! Refused: nothing was changed because it must not be. Failed: tried, and it is not so. Unknown:
//! nobody knows, which is what every time-out and every lost connection is.

use tier0_core::order::{Outcome, Refusal};

/// An order's end other than done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nothing was changed because it must not be.
    #[error("{0}")]
    Refused(Refusal),
    /// Tried, and it is not so.
    #[error("{0}")]
    Failed(String),
    /// Nobody knows whether it is so.
    #[error("{0}")]
    Unknown(String),
}

/// The result of anything that an order does on its way.
pub(crate) type Attempt<T> = Result<T, Trouble>;

impl Trouble {
    /// A refusal with its stable code.
    pub(crate) fn refused(code: &str, sentence: impl Into<String>) -> Self {
        Trouble::Refused(Refusal::new(code, sentence))
    }

    /// A failure.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Trouble::Failed(why.into())
    }

    /// Not known.
    pub(crate) fn unknown(why: impl Into<String>) -> Self {
        Trouble::Unknown(why.into())
    }

    /// A failure of the file system, with what was being done.
    pub(crate) fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Trouble::Failed(format!("{doing}: {error}"))
    }
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Outcome {
        match trouble {
            Trouble::Refused(refusal) => Outcome::Refused { refusal },
            Trouble::Failed(why) => Outcome::Failed { why },
            Trouble::Unknown(why) => Outcome::Unknown { why },
        }
    }
}
