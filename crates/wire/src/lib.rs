//! The messages between the roles. Versioned: every request carries [`PROTOCOL`], and a role that
//! meets another version refuses it with both numbers.
//!
//! The words inside are those of the core; this crate adds only the envelopes.

mod agent;
mod api;
mod availability;
mod logs;
mod token;

pub use agent::{CommandAnswer, CommandRequest, ConfirmAnswer, ConfirmRequest, Grant, PollRequest};
pub use api::{
    AutomaticBody, AutomaticStatus, CheckBody, DatastoreStatus, DetectionStatus, FindingBody,
    NearMissBody, NodeStatus, OperationBody, OperationList, PlanBody, PlanStep, Prediction,
    Problem, QuantilesBody, RebuildPlanBody, RefusalBody, RequestBody, RouteStatus, StatusBody,
    StepBody,
};
pub use availability::{AvailabilityBody, AvailabilityBrief, ProbesAnswer, WayBody, WindowBody};
pub use logs::{LogLine, LogsBody};
pub use token::{TokenError, read_token, tokens_match};

/// The version of the messages in this build.
pub const PROTOCOL: u32 = 1;
