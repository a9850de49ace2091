//! What is known of the regions at the moment: the newest report of each agent and when it came.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{AgentReport, NodeView, PostgresView, ProcessState, RedisView};
use crate::words::{Heard, Moment, NodeId, Region};

/// One region as its agent last reported it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegionSeen {
    /// The newest report, and when it came.
    pub report: Option<(AgentReport, Moment)>,
    /// Why the last attempt brought no report; `None` after one that did.
    pub missed: Option<String>,
    /// How many attempts in a row brought none. Agents are asked over two connections; one that
    /// breaks says little.
    pub misses: u32,
    /// When it was heard again after a silence of more than a detection window.
    pub again: Option<Moment>,
    /// The newest record that the agent is known to have heard of.
    pub heard: Option<Heard>,
    /// By how much the agent's clock was ahead of this one's when its newest report came, in
    /// milliseconds; a report that was long on its way makes it look behind. For readiness only.
    pub clock_ahead_ms: Option<i64>,
}

impl RegionSeen {
    /// How long ago the newest report came; `None` if none ever did.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.report.as_ref().map(|(_, at)| now.since(*at))
    }
}

/// After how many misses in a row an agent counts as not answering, however short the time.
const MISSES: u32 = 2;

/// Everything seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// By region.
    pub regions: BTreeMap<Region, RegionSeen>,
}

/// Whether the old side of a datastore can still be asked for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answering {
    /// Agent and server answer.
    Yes,
    /// The agent answers and says that the server is down.
    ServerDown,
    /// The agent answers and says that the server does not.
    ServerSilent,
    /// The agent does not answer.
    No {
        /// Why it counts as not answering.
        why: String,
    },
}

impl Seen {
    /// The region, as far as anything is known of it.
    pub fn region(&self, region: &Region) -> Option<&RegionSeen> {
        self.regions.get(region)
    }

    /// Why the agent of a region counts as not answering; `None` if it answers.
    pub fn agent_silent(&self, region: &Region, now: Moment, most: Duration) -> Option<String> {
        let Some(seen) = self.regions.get(region) else {
            return Some(format!("the agent of {region} has never answered"));
        };
        if let Some(why) = seen.missed.as_ref().filter(|_| seen.misses >= MISSES) {
            return Some(format!("the agent of {region} does not answer: {why}"));
        }
        match seen.age(now) {
            None => Some(format!("the agent of {region} has never answered")),
            Some(age) if age > most => Some(format!(
                "the agent of {region} has been silent for {} ms, allowed are {} ms",
                age.as_millis(),
                most.as_millis()
            )),
            Some(_) => None,
        }
    }

    /// Whether a node's agent and server answer.
    pub fn answering(&self, node: &NodeId, now: Moment, most: Duration) -> Answering {
        if let Some(why) = self.agent_silent(node.region(), now, most) {
            return Answering::No { why };
        }
        let process = match self.view(node) {
            Some(NodeView::Postgres(view)) => view.process,
            Some(NodeView::Redis(view)) => view.process,
            Some(NodeView::Route(view)) => view.process,
            None => {
                return Answering::No { why: format!("the agent does not report on {node}") };
            }
        };
        match process {
            ProcessState::Running => Answering::Yes,
            ProcessState::NoData | ProcessState::Unusable | ProcessState::Stopped => {
                Answering::ServerDown
            }
            ProcessState::Starting | ProcessState::Silent => Answering::ServerSilent,
        }
    }

    /// The newest view of a node.
    pub fn view(&self, node: &NodeId) -> Option<&NodeView> {
        let (report, _) = self.regions.get(node.region())?.report.as_ref()?;
        report.nodes.get(node).map(|node| &node.view)
    }

    /// The newest view of a PostgreSQL node.
    pub fn postgres(&self, node: &NodeId) -> Option<&PostgresView> {
        match self.view(node)? {
            NodeView::Postgres(view) => Some(view),
            NodeView::Redis(_) | NodeView::Route(_) => None,
        }
    }

    /// The newest view of a Redis node.
    pub fn redis(&self, node: &NodeId) -> Option<&RedisView> {
        match self.view(node)? {
            NodeView::Redis(view) => Some(view),
            NodeView::Postgres(_) | NodeView::Route(_) => None,
        }
    }
}
