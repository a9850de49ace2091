//! Adapters of routes: what stands between clients and a datastore's writer, looked at, and each
//! order carried out. One kind so far: PgBouncer.
//!
//! An adapter refuses to point by an older epoch than it did, confirms what it did from the data
//! path, and lets clients go on by itself when a hold has lasted too long, also after a restart of
//! its agent. Left out: when a route is held and released (the core), and the stamps of orders (the
//! agent).

mod console;
mod held;
mod pgbouncer;
mod pointer;

use tier0_core::order::{Outcome, Refusal};

pub use pgbouncer::{PgBouncer, PgBouncerSettings};
pub use pointer::{Pointed, pointer_text};

/// The result of anything that an order does on its way; an error is an outcome other than done.
type Attempt<T> = Result<T, Outcome>;

fn failed(why: impl Into<String>) -> Outcome {
    Outcome::Failed { why: why.into() }
}

fn unknown(why: impl Into<String>) -> Outcome {
    Outcome::Unknown { why: why.into() }
}

fn refused(code: &str, sentence: impl Into<String>) -> Outcome {
    Outcome::Refused { refusal: Refusal::new(code, sentence) }
}
