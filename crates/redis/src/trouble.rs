//! Why an order has no fact to answer with. Becomes an [`Outcome`]; a time-out is never a failure.

use tier0_core::order::{Fact, Outcome, Refusal};

use crate::connection::AskError;

/// Why an order is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It must not be done.
    #[error("{0}")]
    Refused(Refusal),
    /// It was tried and is not so.
    #[error("{0}")]
    Failed(String),
    /// Nobody knows.
    #[error("{0}")]
    Unknown(String),
}

impl Trouble {
    pub fn refused(code: &str, sentence: impl Into<String>) -> Self {
        Trouble::Refused(Refusal::new(code, sentence))
    }

    pub fn failed(why: impl Into<String>) -> Self {
        Trouble::Failed(why.into())
    }

    /// A file operation that did not work.
    pub fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Trouble::Failed(format!("{what} {}: {error}", path.display()))
    }
}

impl From<AskError> for Trouble {
    fn from(error: AskError) -> Self {
        match &error {
            // No connection: the question was never put.
            AskError::Unreachable { .. } | AskError::Server { .. } => {
                Trouble::Failed(error.to_string())
            }
            AskError::Silent { .. } | AskError::Broken { .. } => {
                Trouble::Unknown(error.to_string())
            }
        }
    }
}

/// What an order comes to.
pub(crate) type Ran = Result<Fact, Trouble>;

pub(crate) fn outcome(ran: Ran) -> Outcome {
    match ran {
        Ok(fact) => Outcome::Done { fact },
        Err(Trouble::Refused(refusal)) => Outcome::Refused { refusal },
        Err(Trouble::Failed(why)) => Outcome::Failed { why },
        Err(Trouble::Unknown(why)) => Outcome::Unknown { why },
    }
}
