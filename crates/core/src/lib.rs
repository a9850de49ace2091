//! The words and the decisions of tier0.
//!
//! Pure: no clock, randomness, socket, file, environment or logging. What happened comes in, what
//! should be done goes out, and the same code runs in production, in the model and in the
//! simulator.
//!
//! Read [`steps`]' table for the order of a switch and [`orchestrator::DECIDER`] for what is done
//! without being asked.

pub mod agent;
pub mod availability;
pub mod grant;
pub mod guard;
pub mod lease;
pub mod observe;
pub mod orchestrator;
pub mod order;
pub mod readiness;
pub mod record;
pub mod route;
pub mod steps;
pub mod words;
