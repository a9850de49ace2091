//! Probes on their way from an agent, and the account of availability as the API shows it.

use serde::{Deserialize, Serialize};
use tier0_core::availability::Probe;
use utoipa::ToSchema;

/// `GET /v1/probes` of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbesAnswer {
    /// Which run of the agent these belong to.
    pub run: String,
    /// The time of that run.
    pub now_ms: i64,
    /// Those that the asker has not seen.
    pub probes: Vec<Probe>,
}

/// What is left of a year's budget, as `GET /status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AvailabilityBrief {
    /// Since when the account is kept, RFC 3339.
    pub since: String,
    /// Milliseconds a year for which some datastore may take no writes.
    pub objective_ms_a_year: u64,
    /// For how long that was so, in the last 365.25 days.
    pub down_in_a_year_ms: u64,
    /// The difference; below zero where the budget is spent.
    pub budget_left_ms: i64,
    /// Nobody is served at the moment on at least one way.
    pub down_now: bool,
}

/// Answer of `GET /availability`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AvailabilityBody {
    /// Since when the account is kept, RFC 3339.
    pub since: String,
    /// Milliseconds a year for which some datastore may take no writes.
    pub objective_ms_a_year: u64,
    /// The same as a percentage of a year that is available.
    pub objective_percent: String,
    /// For how long some datastore took no writes from anybody, in the last 365.25 days.
    pub down_in_a_year_ms: u64,
    /// The difference; below zero where the budget is spent.
    pub budget_left_ms: i64,
    /// Nobody is served at the moment on at least one way.
    pub down_now: bool,
    /// For how long a datastore had a single copy, recorded as such.
    pub exposed_ms: u64,
    /// For how long it could not be proven that there were two.
    pub at_risk_ms: u64,
    /// How exact all of this is.
    pub resolution_ms: u64,
    /// Each way on which clients are served.
    pub ways: Vec<WayBody>,
}

/// The account of one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WayBody {
    /// Which, in words.
    pub way: String,
    /// Which datastore.
    pub datastore: String,
    /// Through which route; absent for the list of its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `write` or `read`.
    pub access: String,
    /// For how long somebody was served.
    pub served_ms: u64,
    /// The part of it in which that took more than a tenth of a second: latency, no downtime.
    pub held_ms: u64,
    /// For how long nobody was served.
    pub failed_ms: u64,
    /// For how long nobody probed: never called available.
    pub unknown_ms: u64,
    /// The longest that a probe was held and then served.
    pub longest_held_ms: u64,
    /// Probes that met an error or had no answer.
    pub errors: u64,
    /// How long all windows were together.
    pub down_ms: u64,
    /// Since when nobody has been served, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_since: Option<String>,
    /// How many windows there were.
    pub windows_total: u64,
    /// Served, of what is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_percent: Option<String>,
    /// The newest windows, newest first.
    pub windows: Vec<WindowBody>,
}

/// A stretch in which nobody was served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WindowBody {
    /// From, RFC 3339.
    pub from: String,
    /// To.
    pub to: String,
    /// How long.
    pub milliseconds: u64,
    /// The operation that was under way; absent where there is no explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// What that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}
