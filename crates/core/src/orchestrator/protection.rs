//! How safe the acknowledged writes of a datastore are now, as a table: what the record holds, less
//! what the newest reports put in doubt. The first row that matches decides.
//!
//! The record says `protected` from a proof until a member leaves. In between a person may lower
//! `synchronous_commit`, a stranger may stream under the member's name, and an agent may fall
//! silent: then it cannot be said any more, and `at-risk` says why.

use crate::observe::PostgresView;
use crate::readiness::{Level, Question, durability};
use crate::record::{DatastoreRecord, Member, Protection};
use crate::words::{DatastoreName, NodeId};

use super::Orchestrator;
use super::input::{Consent, Now};

/// One datastore as it is now.
pub struct Covered<'a> {
    /// What the record says of it.
    pub record: &'a DatastoreRecord,
    /// Why its writer's agent counts as silent.
    pub silent: Option<String>,
    /// The writer's node.
    pub writer: Option<&'a PostgresView>,
    /// What weakens a commit somewhere.
    pub weakened: Option<String>,
}

impl Covered<'_> {
    fn is_protected(&self) -> bool {
        self.record.protection == Protection::Protected
    }

    fn member(&self) -> Option<&Member> {
        self.record.takeover.values().next()
    }

    /// How many stream under the member's name.
    fn streaming_as_member(&self) -> usize {
        let (Some(member), Some(writer)) = (self.member(), self.writer) else { return 0 };
        let name = member.name.to_string();
        writer
            .followers
            .iter()
            .filter(|follower| follower.name == name && follower.state == "streaming")
            .count()
    }

    fn names_the_member(&self) -> bool {
        let (Some(member), Some(writer)) = (self.member(), self.writer) else { return false };
        writer.sync_names.as_ref() == Some(&member.name.rule())
    }
}

/// One row.
pub struct ProtectionRow {
    /// Stable id; never used again for something else.
    pub id: &'static str,
    /// Whether it matches.
    pub applies: fn(&Covered) -> bool,
    /// What it comes to.
    pub verdict: ProtectionVerdict,
    /// Why, for people.
    pub sentence: &'static str,
}

/// What a row comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectionVerdict {
    /// What the record says.
    AsRecorded,
    /// It cannot be said at the moment.
    AtRisk,
}

/// The table.
pub const PROTECTION: &[ProtectionRow] = &[
    ProtectionRow {
        id: "S01",
        applies: |it| !it.is_protected(),
        verdict: ProtectionVerdict::AsRecorded,
        sentence: "the record does not say protected",
    },
    ProtectionRow {
        id: "S02",
        applies: |it| it.silent.is_some(),
        verdict: ProtectionVerdict::AtRisk,
        sentence: "the writer's agent does not answer, so nothing is known of its commits",
    },
    ProtectionRow {
        id: "S03",
        applies: |it| it.weakened.is_some(),
        verdict: ProtectionVerdict::AtRisk,
        sentence: "some commits are acknowledged without the standby's flush",
    },
    ProtectionRow {
        id: "S04",
        applies: |it| {
            it.writer.is_some_and(|view| view.sync_names.is_some()) && !it.names_the_member()
        },
        verdict: ProtectionVerdict::AtRisk,
        sentence: "the primary does not wait for the member that the record names",
    },
    ProtectionRow {
        id: "S05",
        applies: |it| it.streaming_as_member() > 1,
        verdict: ProtectionVerdict::AtRisk,
        sentence: "more than one standby streams under the member's name",
    },
    ProtectionRow {
        id: "S06",
        applies: |it| it.streaming_as_member() == 0,
        verdict: ProtectionVerdict::AtRisk,
        sentence: "the member does not stream; commits wait for it",
    },
    ProtectionRow {
        id: "S07",
        applies: |_| true,
        verdict: ProtectionVerdict::AsRecorded,
        sentence: "a second copy holds every acknowledged write",
    },
];

impl Orchestrator {
    /// How safe a datastore is now; `None` before the record is known.
    pub fn protection_of(&self, now: &Now, name: &DatastoreName) -> Option<Protection> {
        let record = self.record.as_ref()?;
        let of_record = record.datastores.get(name)?;
        let writer = NodeId::new(name.clone(), record.writer.clone());
        let silence = self.settings.limits.silence;
        let silent = self.seen.agent_silent(&record.writer, now.moment, silence);
        let target = self.settings.shape.other(&record.writer);
        let weakened = target.and_then(|target| {
            let question = Question {
                settings: &self.settings,
                record,
                seen: &self.seen,
                lag: &self.lag,
                timing: &self.timing,
                now: now.moment,
                target,
                consent: Consent::None,
            };
            let finding = durability::check(&question, name);
            (finding.level == Level::Warn).then_some(finding.sentence)
        });
        let covered =
            Covered { record: of_record, silent, writer: self.seen.postgres(&writer), weakened };
        let row = PROTECTION.iter().find(|row| (row.applies)(&covered))?;
        Some(match row.verdict {
            ProtectionVerdict::AsRecorded => of_record.protection.clone(),
            ProtectionVerdict::AtRisk => {
                let more = match row.id {
                    "S02" => covered.silent,
                    "S03" => covered.weakened,
                    _ => None,
                };
                let more = more.map(|more| format!(": {more}")).unwrap_or_default();
                Protection::AtRisk { reason: format!("{} ({}){more}", row.sentence, row.id) }
            }
        })
    }

    /// The worst of all datastores.
    pub fn protection(&self, now: &Now) -> Option<Protection> {
        let record = self.record.as_ref()?;
        let of = |name| self.protection_of(now, name);
        record.datastores.keys().filter_map(of).max_by_key(Protection::severity)
    }
}
