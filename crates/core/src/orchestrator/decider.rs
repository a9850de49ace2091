//! The decider: what is done without being asked, as a table. One situation per datastore, the
//! first row that matches decides. The row's id and sentence are in the journal and the log, so
//! "why did it (not) act?" can always be answered.
//!
//! Automatic change of the writer is in `automatic.rs`: this table repairs what the record already
//! says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::guard::Guard;
use crate::observe::{
    DatastoreShape, PostgresRole, PostgresView, ProcessState, ProtectionMode, RedisRole, RedisView,
};
use crate::record::{DatastoreKind, DatastoreRecord, Member, OperationKind};
use crate::words::{DatastoreName, Lsn, Moment, NodeId, Region, SyncName};

use super::activity::{Activity, Ended};
use super::change::Change;
use super::input::{Consent, Now};
use super::output::Effect;
use super::requests::{Beginning, FENCED};
use super::{Orchestrator, Wanted};

/// One row.
pub struct DeciderRow {
    /// Stable id; never used again for something else.
    pub id: &'static str,
    /// Of which kind of datastore it speaks.
    pub kind: DatastoreKind,
    /// Whether it matches.
    pub applies: fn(&Situation) -> bool,
    /// What is done.
    pub decision: Decision,
    /// Why, for people.
    pub sentence: &'static str,
}

/// What a row decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All is as the record says.
    Nothing,
    /// Something is not as it should be, and looking again is all that can be done.
    Wait,
    /// Repair the writer's node.
    RepairWriter(OperationKind),
    /// Repair the other region's node.
    RepairOther(OperationKind),
}

/// One datastore as it is now.
pub struct Situation<'a> {
    /// Its name.
    pub name: &'a DatastoreName,
    /// What the record says of it.
    pub record: &'a DatastoreRecord,
    /// Its shape.
    pub shape: &'a DatastoreShape,
    /// The writer's region.
    pub writer_region: &'a Region,
    /// The other region.
    pub other_region: &'a Region,
    /// Why the writer's agent counts as silent.
    pub writer_agent_silent: bool,
    /// Why the other agent counts as silent.
    pub other_agent_silent: bool,
    /// The writer's node, where it is PostgreSQL.
    pub writer_postgres: Option<&'a PostgresView>,
    /// The other region's node, where it is PostgreSQL.
    pub other_postgres: Option<&'a PostgresView>,
    /// The writer's node, where it is Redis.
    pub writer_redis: Option<&'a RedisView>,
    /// The other region's node, where it is Redis.
    pub other_redis: Option<&'a RedisView>,
    /// How long the other region's node has not been following.
    pub not_following_for: Duration,
    /// How long commits may wait for a lost standby.
    pub stall: Duration,
    /// How long the longest waiting commit has waited, by the writer's own agent (P9). A standby
    /// that is frozen goes on "streaming" until its sender's time-out.
    pub commit_wait: Duration,
    /// The other region's node is left untouched until an operator releases it.
    pub other_is_held: bool,
}

impl Situation<'_> {
    fn member(&self) -> Option<&Member> {
        self.record.takeover.values().next()
    }

    fn writer_process(&self) -> Option<ProcessState> {
        self.writer_postgres
            .map(|view| view.process)
            .or_else(|| self.writer_redis.map(|view| view.process))
    }

    fn other_process(&self) -> Option<ProcessState> {
        self.other_postgres
            .map(|view| view.process)
            .or_else(|| self.other_redis.map(|view| view.process))
    }

    /// Whether commits of this datastore never go on with a single copy by themselves (P9).
    fn keeps_waiting(&self) -> bool {
        self.shape.protection == ProtectionMode::MaxProtection
    }

    /// Whether the member has been gone, or a commit has waited for it, too long.
    fn member_is_lost(&self) -> bool {
        self.member().is_some()
            && (self.commit_wait >= self.stall
                || !self.member_streams() && self.not_following_for >= self.stall)
    }

    /// Whether commits wait for something else than the name that nobody has.
    fn waits_otherwise(&self) -> bool {
        let other = NodeId::new(self.name.clone(), self.other_region.clone());
        let rule = SyncName::nobody(other).rule();
        let names = self.writer_postgres.and_then(|view| view.sync_names.as_ref());
        names.is_some_and(|names| *names != rule)
    }

    fn other_is_no_standby(&self) -> bool {
        is_down(self.other_process())
            || self.other_postgres.is_some_and(|view| view.role == Some(PostgresRole::Primary))
    }

    fn streams_as(&self, name: &str) -> bool {
        self.writer_postgres.is_some_and(|view| {
            view.followers
                .iter()
                .any(|follower| follower.name == name && follower.state == "streaming")
        })
    }

    fn member_streams(&self) -> bool {
        self.member().is_some_and(|member| self.streams_as(&member.name.to_string()))
    }

    fn other_streams(&self) -> bool {
        self.other_postgres.is_some_and(|view| {
            view.role == Some(PostgresRole::Standby)
                && view.streaming_as.as_deref().is_some_and(|name| self.streams_as(name))
        })
    }

    fn other_bytes_behind(&self) -> Option<u64> {
        let writer: Lsn = self.writer_postgres?.flushed?;
        Some(writer.ahead_of(self.other_postgres?.flushed?))
    }

    fn other_follows_redis(&self) -> bool {
        let address = self.shape.addresses.get(self.writer_region);
        self.other_redis.is_some_and(|view| {
            view.role == Some(RedisRole::Replica)
                && view.master.as_ref() == address
                && view.process == ProcessState::Running
        })
    }
}

fn is_down(process: Option<ProcessState>) -> bool {
    matches!(process, Some(ProcessState::Stopped | ProcessState::NoData | ProcessState::Unusable))
}

fn is_uncertain(process: Option<ProcessState>) -> bool {
    matches!(process, None | Some(ProcessState::Starting | ProcessState::Silent))
}

/// A standby that is nearly in step may join; one that is far behind would only make clients wait.
const JOIN_BYTES_MOST: u64 = 16 * 1024 * 1024;

/// How long a running standby may have no stream before it is made to follow again.
const FOLLOW_AFTER: Duration = Duration::from_secs(3);

use DatastoreKind::{Postgres, Redis};

/// The table.
pub const DECIDER: &[DeciderRow] = &[
    DeciderRow {
        id: "P01",
        kind: Postgres,
        applies: |it| it.writer_agent_silent && Guard::SilentIsNotDegraded.holds(),
        decision: Decision::Wait,
        sentence: "the writer's agent does not answer; its server is left alone, and is never degraded on silence",
    },
    DeciderRow {
        id: "P02",
        kind: Postgres,
        applies: |it| {
            it.writer_process() == Some(ProcessState::NoData)
                || it.writer_process() == Some(ProcessState::Unusable)
        },
        decision: Decision::Wait,
        sentence: "the writer's node has no data that can be used; an operator must decide",
    },
    DeciderRow {
        id: "P03",
        kind: Postgres,
        applies: |it| is_uncertain(it.writer_process()),
        decision: Decision::Wait,
        sentence: "the writer's server does not answer yet",
    },
    DeciderRow {
        id: "P04",
        kind: Postgres,
        applies: |it| is_down(it.writer_process()),
        decision: Decision::RepairWriter(OperationKind::Restart),
        sentence: "the writer's server is down and the record permits it: start it, clients kept out until it is proven",
    },
    DeciderRow {
        id: "P05",
        kind: Postgres,
        applies: |it| {
            it.writer_postgres.is_some_and(|view| view.role == Some(PostgresRole::Standby))
        },
        decision: Decision::Wait,
        sentence: "the writer's node is still a standby; the operation that moves the writer goes on with it",
    },
    // Before P06: a primary that was started again cannot prove that commits wait for a member
    // that is gone as well, and nobody would start that one.
    DeciderRow {
        id: "P08",
        kind: Postgres,
        applies: |it| !it.keeps_waiting() && (it.member_is_lost() || it.record.is_waiting()),
        decision: Decision::RepairOther(OperationKind::Leave),
        sentence: "the member has been gone, or a commit has waited for it, longer than commits may wait: it leaves, record first",
    },
    DeciderRow {
        id: "P20",
        kind: Postgres,
        applies: |it| it.member_is_lost() && !it.other_agent_silent && it.other_is_no_standby(),
        decision: Decision::RepairOther(OperationKind::Leave),
        sentence: "max-protection, and the member has ended: it leaves to be made to follow again, and commits go on waiting",
    },
    DeciderRow {
        id: "P19",
        kind: Postgres,
        applies: |it| it.member_is_lost(),
        decision: Decision::Wait,
        sentence: "max-protection: the member is gone, and commits wait until it is back or an operator exposes",
    },
    DeciderRow {
        id: "P21",
        kind: Postgres,
        applies: |it| it.record.is_waiting() && it.waits_otherwise(),
        decision: Decision::RepairWriter(OperationKind::Restart),
        sentence: "the record says that commits wait until a standby has joined: they are made to",
    },
    // Nobody can prove that commits wait for a member while there is none: clients that are kept
    // out come in after the join.
    DeciderRow {
        id: "P06",
        kind: Postgres,
        applies: |it| {
            !it.record.is_waiting() && it.writer_postgres.is_some_and(|view| !view.clients_admitted)
        },
        decision: Decision::RepairWriter(OperationKind::Restart),
        sentence: "the writer's server keeps clients out: prove that commits wait, then let them in",
    },
    DeciderRow {
        id: "P07",
        kind: Postgres,
        applies: |it| {
            it.member().is_none()
                && !it.record.is_waiting()
                && it.writer_postgres.is_some_and(|view| {
                    view.sync_names.as_deref().is_some_and(|names| !names.is_empty())
                })
        },
        decision: Decision::RepairWriter(OperationKind::Leave),
        sentence: "the record says exposed and commits still wait for a name: they stop waiting",
    },
    DeciderRow {
        id: "P09",
        kind: Postgres,
        applies: |it| it.member().is_some() && it.member_streams(),
        decision: Decision::Nothing,
        sentence: "protected: the member streams",
    },
    DeciderRow {
        id: "P10",
        kind: Postgres,
        applies: |it| it.member().is_some(),
        decision: Decision::Wait,
        sentence: "the member does not stream at the moment; commits wait for it",
    },
    DeciderRow {
        id: "P11",
        kind: Postgres,
        applies: |it| it.other_agent_silent,
        decision: Decision::Wait,
        sentence: "the other region's agent does not answer: there is one copy until it does",
    },
    DeciderRow {
        id: "P18",
        kind: Postgres,
        applies: |it| it.other_is_held && Guard::HeldIsLeftAlone.holds(),
        decision: Decision::Wait,
        sentence: "loss was accepted: the old data directory is left untouched until `tier0 rebuild` releases it",
    },
    DeciderRow {
        id: "P12",
        kind: Postgres,
        applies: |it| it.other_is_no_standby(),
        decision: Decision::RepairOther(OperationKind::Rejoin),
        sentence: "the other region's node is not a standby: it becomes one",
    },
    DeciderRow {
        id: "P13",
        kind: Postgres,
        applies: |it| is_uncertain(it.other_process()),
        decision: Decision::Wait,
        sentence: "the other region's server does not answer yet",
    },
    DeciderRow {
        id: "P14",
        kind: Postgres,
        applies: |it| !it.other_streams() && it.not_following_for >= FOLLOW_AFTER,
        decision: Decision::RepairOther(OperationKind::Rejoin),
        sentence: "the standby has no stream from the writer: it is made to follow",
    },
    DeciderRow {
        id: "P15",
        kind: Postgres,
        applies: |it| !it.other_streams(),
        decision: Decision::Wait,
        sentence: "the standby has had no stream for a moment",
    },
    DeciderRow {
        id: "P16",
        kind: Postgres,
        applies: |it| it.other_bytes_behind().is_none_or(|bytes| bytes > JOIN_BYTES_MOST),
        decision: Decision::Wait,
        sentence: "the standby is catching up",
    },
    DeciderRow {
        id: "P17",
        kind: Postgres,
        applies: |_| true,
        decision: Decision::RepairOther(OperationKind::Join),
        sentence: "the standby streams and is nearly in step: it joins the takeover set",
    },
    DeciderRow {
        id: "R01",
        kind: Redis,
        applies: |it| it.writer_agent_silent,
        decision: Decision::Wait,
        sentence: "the writer's agent does not answer; its server is left alone",
    },
    DeciderRow {
        id: "R02",
        kind: Redis,
        applies: |it| is_uncertain(it.writer_process()),
        decision: Decision::Wait,
        sentence: "the writer's server does not answer yet",
    },
    DeciderRow {
        id: "R03",
        kind: Redis,
        applies: |it| is_down(it.writer_process()),
        decision: Decision::RepairWriter(OperationKind::Restart),
        sentence: "the writer's server is down and the record permits it: start it with the data on its disk",
    },
    DeciderRow {
        id: "R04",
        kind: Redis,
        applies: |it| {
            it.writer_redis.is_some_and(|view| {
                view.role == Some(RedisRole::Replica)
                    || view.min_replicas_to_write.is_some_and(|value| value >= FENCED)
            })
        },
        decision: Decision::RepairWriter(OperationKind::Restart),
        sentence: "the writer's server does not accept writes, and the record says that it should",
    },
    DeciderRow {
        id: "R05",
        kind: Redis,
        applies: |it| it.other_agent_silent,
        decision: Decision::Wait,
        sentence: "the other region's agent does not answer",
    },
    DeciderRow {
        id: "R06",
        kind: Redis,
        applies: |it| {
            is_down(it.other_process())
                || (it.other_process() == Some(ProcessState::Running) && !it.other_follows_redis())
        },
        decision: Decision::RepairOther(OperationKind::Rejoin),
        sentence: "the other region's node does not follow the writer's: it becomes its replica",
    },
    DeciderRow {
        id: "R07",
        kind: Redis,
        applies: |it| is_uncertain(it.other_process()),
        decision: Decision::Wait,
        sentence: "the other region's server does not answer yet",
    },
    DeciderRow {
        id: "R08",
        kind: Redis,
        applies: |_| true,
        decision: Decision::Nothing,
        sentence: "the replica follows",
    },
];

impl Orchestrator {
    /// Look at every datastore that nothing is being done to.
    pub(super) fn decide(&mut self, now: &Now, out: &mut Vec<Effect>) {
        let Some(record) = self.record.clone() else { return };
        // One that can go no further leaves the datastores alone that it has opened.
        let moving = self.is_owned(&record);
        if (moving && Guard::NoRepairWhileMoving.holds()) || !self.wanted.is_empty() {
            return;
        }
        let Some(other_region) = self.settings.shape.other(&record.writer).cloned() else { return };
        for name in self.settings.shape.datastores.keys().cloned().collect::<Vec<_>>() {
            if self.busy_with(&name).is_some() {
                continue;
            }
            let Some(row) = self.matching_row(now, &record, &name, &other_region) else { continue };
            if self.explained.get(&name.to_string()) != Some(&row.id) {
                self.explained.insert(name.to_string(), row.id);
                out.push(Effect::Explain {
                    row: row.id,
                    subject: name.to_string(),
                    sentence: row.sentence,
                });
            }
            let (kind, region) = match row.decision {
                Decision::Nothing | Decision::Wait => continue,
                Decision::RepairWriter(kind) => (kind, record.writer.clone()),
                Decision::RepairOther(kind) => (kind, other_region.clone()),
            };
            let waits = self.backoff.get(&name).is_some_and(|it| it.not_before > now.moment);
            if waits || self.is_unseen(now, &name) {
                continue;
            }
            let beginning = Beginning {
                id: now.fresh.clone(),
                kind,
                target: record.writer.clone(),
                node: Some(NodeId::new(name.clone(), region)),
                consent: Consent::None,
                by: format!("decider row {}", row.id),
                reason: row.sentence.to_owned(),
                cause: None,
                arming: None,
            };
            self.start(now, beginning, out);
            // One fresh id per input: the other datastores follow at the next one.
            return;
        }
    }

    /// The row that explains a datastore at the moment.
    pub fn matching_row(
        &self,
        now: &Now,
        record: &crate::record::Record,
        name: &DatastoreName,
        other_region: &Region,
    ) -> Option<&'static DeciderRow> {
        let silence = self.settings.limits.silence;
        let writer = NodeId::new(name.clone(), record.writer.clone());
        let other = NodeId::new(name.clone(), other_region.clone());
        let silent =
            |region: &Region| self.seen.agent_silent(region, now.moment, silence).is_some();
        let shape = self.settings.shape.datastores.get(name)?;
        let situation = Situation {
            name,
            record: record.datastores.get(name)?,
            shape,
            writer_region: &record.writer,
            other_region,
            writer_agent_silent: silent(&record.writer),
            other_agent_silent: silent(other_region),
            writer_postgres: self.seen.postgres(&writer),
            other_postgres: self.seen.postgres(&other),
            writer_redis: self.seen.redis(&writer),
            other_redis: self.seen.redis(&other),
            not_following_for: self
                .not_following_since
                .get(&other)
                .zip(self.seen.region(&record.writer).and_then(|seen| seen.report.as_ref()))
                // As of the writer's newest report: nothing is concluded from its silence (P9).
                .map(|(since, (_, reported))| reported.since(*since))
                .unwrap_or_default(),
            stall: self.settings.limits.stall,
            commit_wait: self
                .seen
                .postgres(&writer)
                .and_then(|view| view.settings.get("tier0.commit_wait_ms")?.parse().ok())
                .map(Duration::from_millis)
                .unwrap_or_default(),
            other_is_held: record.held.contains_key(&other),
        };
        DECIDER.iter().find(|row| row.kind == shape.kind && (row.applies)(&situation))
    }

    /// Sample how far the writers have flushed.
    pub(super) fn note_flushed(&mut self, now: &Now) {
        let Some(record) = &self.record else { return };
        for name in record.datastores.keys() {
            let writer = NodeId::new(name.clone(), record.writer.clone());
            let view = self.seen.postgres(&writer);
            let primary = view.filter(|view| view.role == Some(PostgresRole::Primary));
            if let Some(flushed) = primary.and_then(|view| view.flushed) {
                self.lag.flushed(name, now.moment, flushed);
            }
        }
    }

    /// Keep since when the other region's PostgreSQL node has not been seen streaming. Only the
    /// writer's own fresh report counts.
    pub(super) fn note_following(&mut self, now: &Now) {
        let Some(record) = &self.record else { return };
        let Some(other_region) = self.settings.shape.other(&record.writer) else { return };
        for (name, datastore) in &self.settings.shape.datastores {
            if datastore.kind != DatastoreKind::Postgres {
                continue;
            }
            let writer = NodeId::new(name.clone(), record.writer.clone());
            let other = NodeId::new(name.clone(), other_region.clone());
            let Some(view) = self.seen.postgres(&writer) else { continue };
            let member = record
                .datastores
                .get(name)
                .and_then(|datastore| datastore.takeover.values().next())
                .map(|member| member.name.to_string());
            let prefix = other.to_string();
            let streams = view.followers.iter().any(|follower| {
                follower.state == "streaming"
                    && match &member {
                        Some(member) => follower.name == *member,
                        None => follower.name.starts_with(&prefix),
                    }
            });
            if streams || view.process != ProcessState::Running {
                self.not_following_since.remove(&other);
            } else {
                self.not_following_since.entry(other).or_insert(now.moment);
            }
        }
    }

    /// A repair that worked is not seen to have worked before the next report: what was seen until
    /// then would have it repaired again.
    fn is_unseen(&self, now: &Now, name: &DatastoreName) -> bool {
        let silence = self.settings.limits.silence;
        self.unseen.get(name).is_some_and(|regions| {
            regions.iter().any(|it| self.seen.agent_silent(it, now.moment, silence).is_none())
        })
    }

    /// Repairs that do not work are tried again after a while that doubles up to ten seconds.
    pub(super) fn note_repair(&mut self, now: &Now, name: &DatastoreName, ended: &Ended) {
        self.explained.remove(&name.to_string());
        match ended {
            Ended::Succeeded => {
                self.backoff.remove(name);
                let regions = self.settings.shape.regions.iter().cloned().collect();
                self.unseen.insert(name.clone(), regions);
                self.not_following_since.retain(|node, _| node.datastore() != name);
            }
            Ended::WithExceptions { .. }
            | Ended::Refused { .. }
            | Ended::Aborted { .. }
            | Ended::Failed { .. }
            | Ended::Unknown { .. } => {
                let backoff = self.backoff.entry(name.clone()).or_default();
                backoff.failures += 1;
                let wait = Duration::from_millis(200)
                    .saturating_mul(1 << backoff.failures.min(6))
                    .min(Duration::from_secs(10));
                backoff.not_before = now.moment.after(wait);
            }
        }
    }

    /// About once a second, when nothing else is done, raise the floors of members to what they
    /// have flushed (P3).
    pub(super) fn raise_floors(&mut self, now: &Now) {
        let idle = self.activities.values().all(Activity::is_retrying);
        let quiet = idle && self.wanted.is_empty() && self.storing.is_none();
        let due = now.moment.since(self.floors_at) >= self.settings.limits.floors;
        let Some(record) = &self.record else { return };
        if !quiet || !due || self.is_owned(record) {
            return;
        }
        let mut floors = BTreeMap::new();
        for datastore in record.datastores.values() {
            for (node, member) in &datastore.takeover {
                let flushed = self.seen.postgres(node).and_then(|view| view.flushed);
                if let Some(flushed) = flushed.filter(|flushed| *flushed > member.floor) {
                    floors.insert(node.clone(), flushed);
                }
            }
        }
        self.floors_at = now.moment;
        if !floors.is_empty() {
            self.wanted.push_back(Wanted {
                change: Change::Floors { floors },
                since: now.moment,
                by: None,
            });
        }
    }

    /// When something last changed for a datastore's repairs; for status.
    pub fn repair_not_before(&self, name: &DatastoreName) -> Option<Moment> {
        self.backoff.get(name).map(|backoff| backoff.not_before)
    }
}
