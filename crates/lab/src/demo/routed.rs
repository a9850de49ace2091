//! What clients met that come through routes, in a planned move, and what the verdict says of it. Left out:
//! a region that is lost, where sessions of every kind meet errors.

use std::time::Duration;

use super::switch::Switch;
use super::verdict::Held;
use crate::ledger::{TrafficPlan, TrafficSummary, WritePath};

/// The ways through routes.
pub const PATHS: [WritePath; 3] = [WritePath::Routed, WritePath::Proxied, WritePath::RedisProxied];

/// How many sessions a planned move cuts, each once: a write that is on its way then has no answer. PgBouncer
/// has its clients wait.
fn cut(path: WritePath, plan: &TrafficPlan) -> usize {
    match path {
        WritePath::Proxied => plan.proxied_writers,
        WritePath::RedisProxied => plan.redis_proxied_writers,
        WritePath::Routed
        | WritePath::Postgres
        | WritePath::Redis
        | WritePath::RedisWait
        | WritePath::Http => 0,
    }
}

/// A way for people.
fn way(path: WritePath) -> &'static str {
    match path {
        WritePath::Routed => "through PgBouncer",
        WritePath::Proxied => "through the router",
        WritePath::RedisProxied => "Redis through the router",
        other => other.name(),
    }
}

/// The conditions on what they met, with their figures.
pub fn conditions(
    switches: &[Switch],
    plan: &TrafficPlan,
    summary: &TrafficSummary,
) -> Vec<(Held, String)> {
    let mut conditions = Vec::new();
    for path in PATHS {
        let cut = cut(path, plan);
        let Some(path_summary) = summary.path(path) else { continue };
        for switch in switches {
            let gap = path_summary.latencies.largest_between(switch.from, switch.to);
            let milliseconds = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1000.0);
            let stall = gap.map_or("under 20".to_owned(), |gap| milliseconds(gap.length()));
            let errors = switch.errors.get(&path).copied().unwrap_or_default();
            let met = match errors {
                1 => "1 error".to_owned(),
                _ => format!("{errors} errors"),
            };
            let sessions = match cut {
                0 => String::new(),
                _ => format!(" ({cut} sessions, each cut once)"),
            };
            conditions.push((
                (errors <= cut as u64).into(),
                format!("{}, to {}: {met}{sessions}, stall {stall} ms", way(path), switch.target),
            ));
        }
    }
    conditions
}
