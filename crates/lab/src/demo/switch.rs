//! One commanded switch in the demo: what the answer said, and how it is printed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::routed;
use super::verdict::REDIS;
use crate::api::{Api, FailoverAnswer};
use crate::ledger::{Traffic, WritePath};

/// The steps in the specification's order, with its words for people.
const STEPS: [(&str, &str); 6] = [
    ("prepare", "prepare"),
    ("health_check", "health check"),
    ("database_promotion", "database promotion"),
    ("redis_failover", "Redis failover"),
    ("routing_update", "routing update"),
    ("validation", "validation"),
];

/// How many further writes of each path show that clients write again.
const SETTLED: u64 = 30;
/// How long they may take.
const WRITES: Duration = Duration::from_secs(15);

/// How many writes were acknowledged so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// By PostgreSQL.
    pub postgres: u64,
    /// By Redis, on every path.
    pub redis: u64,
}

impl Acknowledged {
    /// As of now.
    pub fn so_far(traffic: &Traffic) -> Acknowledged {
        Acknowledged {
            postgres: traffic.acknowledged(WritePath::Postgres),
            redis: REDIS.into_iter().map(|path| traffic.acknowledged(path)).sum(),
        }
    }
}

/// A switch that was commanded.
#[derive(Debug)]
pub struct Switch {
    /// Where to.
    pub target: String,
    /// What was acknowledged before the command.
    pub before: Acknowledged,
    /// When it was commanded, since the start of the traffic.
    pub from: Duration,
    /// When clients wrote again on every path.
    pub to: Duration,
    /// What the orchestrator answered.
    pub answer: FailoverAnswer,
    /// How many writes through routes met an error, from the command until clients wrote again.
    pub errors: BTreeMap<WritePath, u64>,
}

impl Switch {
    /// Command it, under traffic, and wait for the answer and until clients write again.
    pub async fn command(api: &Api, traffic: &Traffic, target: &str) -> Result<Switch> {
        let before = Acknowledged::so_far(traffic);
        let from = traffic.elapsed();
        let errors = |path: WritePath| (path, traffic.errors(path));
        let errors: BTreeMap<_, _> = routed::PATHS.into_iter().map(errors).collect();
        let answer = api.failover(target).await?;
        let mut switch = Switch {
            target: target.to_owned(),
            before,
            from,
            to: traffic.elapsed(),
            answer,
            errors: BTreeMap::new(),
        };
        if switch.succeeded() {
            traffic.wait_for_more(SETTLED, WRITES).await?;
        }
        switch.to = traffic.elapsed();
        let since = |(path, before)| (path, traffic.errors(path) - before);
        switch.errors = errors.into_iter().map(since).collect();
        Ok(switch)
    }

    /// Whether the orchestrator says that it is done.
    pub fn succeeded(&self) -> bool {
        self.answer.status == 200
            && self.answer.body.get("success").and_then(Value::as_bool) == Some(true)
    }

    /// The answer, in lines.
    pub fn text(&self) -> String {
        let mut text = match self.answer.seconds("/total_failover_time") {
            Some(total) if self.succeeded() => format!("    total {total:.3} s"),
            _ => format!("    answer {}: {}", self.answer.status, self.problem()),
        };
        let mut steps = Vec::new();
        for (field, name) in STEPS {
            // Some builds give a step as a number, some with its start and end as well.
            let pointer = format!("/steps/{field}");
            let seconds = self
                .answer
                .seconds(&pointer)
                .or_else(|| self.answer.seconds(&format!("{pointer}/seconds")));
            if let Some(seconds) = seconds {
                steps.push(format!("{name} {seconds:.3}"));
            }
        }
        if !steps.is_empty() {
            text.push_str(&format!("\n    steps, partly side by side: {}", steps.join(" · ")));
        }
        text
    }

    fn problem(&self) -> String {
        ["error", "detail", "title"]
            .iter()
            .find_map(|name| self.answer.body.get(name)?.as_str())
            .map_or_else(|| self.answer.body.to_string(), str::to_owned)
    }
}
