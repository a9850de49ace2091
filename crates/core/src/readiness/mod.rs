//! Whether a move of the writer can work, judged by what is known now. One file per check; this
//! is the list. A check looks at one thing, and its refusal carries the numbers it judged by.

mod agents;
mod archive;
mod autostart;
mod backup;
mod clocks;
mod connectivity;
mod copies;
mod credentials;
mod detection;
mod disk;
pub(crate) mod durability;
mod identity;
mod lag;
mod membership;
mod parameters;
mod postgres_standby;
mod redis_memory;
mod redis_persistence;
mod redis_replica;
mod redis_versions;
mod routes;
mod sentinels;
mod sessions;
mod slots;
mod versions;

pub(crate) use redis_replica::CODE as REDIS_NOT_READY;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observe::{
    AgentReport, HostView, MovePolicy, NodeView, PostgresView, ProcessState, RedisView,
};
use crate::orchestrator::{Consent, Lag, Seen, Settings, Timing};
use crate::order::Refusal;
use crate::record::{ClaimPhase, DatastoreKind, Record};
use crate::words::{DatastoreName, Lsn, Moment, NodeId, OperationId, Region};

/// Everything a check may look at.
pub struct Question<'a> {
    /// Shape and limits.
    pub settings: &'a Settings,
    /// The authority record.
    pub record: &'a Record,
    /// The newest reports.
    pub seen: &'a Seen,
    /// How far standbys are behind, in time.
    pub lag: &'a Lag,
    /// How long answers take.
    pub timing: &'a Timing,
    /// The time.
    pub now: Moment,
    /// Where the writer would move.
    pub target: &'a Region,
    /// What the operator takes upon themselves.
    pub consent: Consent,
}

impl Question<'_> {
    /// The node that is the writer's now.
    pub fn old_node(&self, datastore: &DatastoreName) -> NodeId {
        NodeId::new(datastore.clone(), self.record.writer.clone())
    }

    /// The node that would be the writer's.
    pub fn new_node(&self, datastore: &DatastoreName) -> NodeId {
        NodeId::new(datastore.clone(), self.target.clone())
    }

    /// The newest view of a node; `None` while its agent is silent, since what it said last is not
    /// what is so now.
    fn view(&self, node: &NodeId) -> Option<&NodeView> {
        let silence = self.settings.limits.silence;
        match self.seen.agent_silent(node.region(), self.now, silence) {
            Some(_) => None,
            None => self.seen.view(node),
        }
    }

    fn postgres(&self, node: &NodeId) -> Option<&PostgresView> {
        match self.view(node)? {
            NodeView::Postgres(view) => Some(view),
            NodeView::Redis(_) | NodeView::Route(_) => None,
        }
    }

    /// How far a PostgreSQL node had flushed when it was last heard of, and how long ago that was;
    /// also while its agent is silent.
    fn last_flushed(&self, node: &NodeId) -> Option<(Lsn, Duration)> {
        let ago = self.seen.region(node.region())?.age(self.now)?;
        Some((self.seen.postgres(node)?.flushed?, ago))
    }

    fn redis(&self, node: &NodeId) -> Option<&RedisView> {
        match self.view(node)? {
            NodeView::Redis(view) => Some(view),
            NodeView::Postgres(_) | NodeView::Route(_) => None,
        }
    }

    /// Whether the writer's server of a datastore works, as its agent says. Where it does not,
    /// nothing that only makes a move slower stands in the way.
    pub fn writer_serves(&self, datastore: &DatastoreName) -> bool {
        match self.view(&self.old_node(datastore)) {
            Some(NodeView::Redis(view)) => view.process == ProcessState::Running,
            Some(NodeView::Postgres(view)) => {
                let hangs = view.commits.as_ref().is_some_and(|probe| {
                    let failing = probe.kept_failing_ms.min(probe.fresh_failing_ms);
                    u128::from(failing) >= self.settings.limits.silence.as_millis()
                });
                view.process == ProcessState::Running && !hangs
            }
            Some(NodeView::Route(_)) | None => false,
        }
    }

    /// The newest report of an agent; `None` while it is silent.
    fn report(&self, region: &Region) -> Option<&AgentReport> {
        let silence = self.settings.limits.silence;
        match self.seen.agent_silent(region, self.now, silence) {
            Some(_) => None,
            None => self.seen.region(region)?.report.as_ref().map(|(report, _)| report),
        }
    }

    /// What an agent knows beside its servers; `None` while it is silent.
    fn host(&self, region: &Region) -> Option<&HostView> {
        self.report(region).map(|report| &report.host)
    }

    /// How old the oldest report is that a finding rests on; `None` where there is none.
    fn age(&self, datastore: Option<&DatastoreName>) -> Option<Duration> {
        [&self.record.writer, self.target]
            .into_iter()
            .filter_map(|region| {
                let seen = self.seen.region(region)?;
                let node = datastore.and_then(|name| {
                    let id = NodeId::new(name.clone(), region.clone());
                    seen.report.as_ref()?.0.nodes.get(&id)
                });
                let looked = node.map_or(0, |node| node.age_ms);
                Some(seen.age(self.now)? + Duration::from_millis(looked))
            })
            .max()
    }

    /// The operation that moved the writer away from the target and cannot finish, where one owns
    /// the stack: what it has not opened on the new side was accepted by nobody since.
    fn unfinished_move_from_target(&self) -> Option<&OperationId> {
        let claim = self.record.claim.as_ref()?;
        let unfinished = claim.phase == ClaimPhase::After && claim.from == *self.target;
        unfinished.then_some(&claim.operation)
    }

    /// Whether the old side's agent answers.
    pub fn old_agent_answers(&self) -> bool {
        self.seen
            .agent_silent(&self.record.writer, self.now, self.settings.limits.silence)
            .is_none()
    }
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing stands in the way.
    Pass,
    /// It can work, and this should be looked at.
    Warn,
    /// Nobody knows.
    Unknown,
    /// It would be refused.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Pass => "pass",
            Level::Warn => "warn",
            Level::Unknown => "unknown",
            Level::Fail => "fail",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable code; it has a page in the docs.
    pub code: String,
    /// What it says.
    pub level: Level,
    /// Of which datastore; `None` for the stack.
    pub datastore: Option<DatastoreName>,
    /// With the numbers it was judged by.
    pub sentence: String,
    /// The one number that decides, where there is one; the code's page says of what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<f64>,
    /// How old the oldest report is that this rests on, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl Finding {
    /// A finding without a number.
    pub fn new(
        code: &str,
        level: Level,
        datastore: Option<&DatastoreName>,
        sentence: impl Into<String>,
    ) -> Self {
        Finding {
            code: code.to_owned(),
            level,
            datastore: datastore.cloned(),
            sentence: sentence.into(),
            number: None,
            age_ms: None,
        }
    }

    /// The number that decided.
    pub(crate) fn number(mut self, number: f64) -> Self {
        self.number = Some(number);
        self
    }
}

/// Every finding about a move, worst first.
pub fn judge(question: &Question) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(agents::check(question));
    findings.push(clocks::check(question));
    findings.push(detection::check(question));
    for (name, datastore) in &question.settings.shape.datastores {
        match datastore.kind {
            DatastoreKind::Postgres => {
                findings.push(membership::check(question, name));
                findings.extend(postgres_standby::check(question, name));
                findings.push(lag::check(question, name));
                findings.push(identity::check(question, name));
                findings.push(parameters::check(question, name));
                findings.push(durability::check(question, name));
                findings.push(slots::check(question, name));
                findings.push(archive::check(question, name));
                findings.push(versions::check(question, name));
                findings.push(credentials::check(question, name));
                findings.push(sessions::check(question, name));
                findings.extend(copies::check(question, name));
            }
            DatastoreKind::Redis => {
                findings.push(redis_replica::check(question, name));
                findings.push(redis_memory::check(question, name));
                findings.push(redis_persistence::check(question, name));
                findings.push(redis_versions::check(question, name));
                findings.extend(sentinels::check(question, name));
            }
        }
        findings.push(disk::check(question, name));
        findings.push(connectivity::check(question, name));
        findings.extend(routes::check(question, name));
        findings.push(autostart::check(question, name));
        findings.extend(backup::check(question, name));
    }
    for finding in &mut findings {
        let age = question.age(finding.datastore.as_ref());
        finding.age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

/// Whether a move may begin. A datastore that only follows does not hold it up when the old side
/// is gone; when nothing is urgent, it does.
pub fn may_move(question: &Question) -> Result<(), Refusal> {
    let urgent = question.settings.shape.datastores.iter().any(|(name, datastore)| {
        datastore.policy == MovePolicy::Required && !question.writer_serves(name)
    });
    for finding in judge(question) {
        if finding.level != Level::Fail {
            continue;
        }
        let follows = finding
            .datastore
            .as_ref()
            .and_then(|name| question.settings.shape.datastores.get(name))
            .is_some_and(|datastore| datastore.policy == MovePolicy::Follow);
        if follows && urgent {
            continue;
        }
        return Err(Refusal { code: finding.code, sentence: finding.sentence });
    }
    Ok(())
}
