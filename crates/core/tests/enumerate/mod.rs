//! Small spaces walked through whole: every command an agent can be sent after every command it can
//! have obeyed, and every order in which the record can be changed. What must hold is written here
//! once more, apart from the code, in the plainest way.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

mod accepted;
mod down;
mod lease;
mod several;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tier0_core::agent::{Judgement, Obeyed, hear, judge};
use tier0_core::observe::{AgentReport, Announce, DatastoreShape, ProtectionMode, Shape};
use tier0_core::orchestrator::{Change, Consent, Lag, Seen, Timing, apply, first_record};
use tier0_core::order::{Command, Order, Outcome};
use tier0_core::readiness::{Level, Question, judge as judge_move};
use tier0_core::record::{
    Automatic, Claim, ClaimPhase, End, Finished, Member, OperationKind, Protection, Record,
};
use tier0_core::steps::Step;
use tier0_core::words::*;

use crate::world::{node, region, settings};

pub use accepted::accepted_loss;
pub use down::down_without_news;
pub use lease::leases;
pub use several::{grants, silence};

/// What must be so and is not.
pub type Verdict = Result<u64, String>;

fn lineage(number: u64) -> Lineage {
    format!("1111111{number}-0000").parse().unwrap()
}

type Number = (u64, u64, u64, u64);

fn command(number: Number, leave: bool) -> Command {
    let (of, epoch, revision, step) = number;
    Command {
        node: node("pg1.region1"),
        stamp: Stamp {
            lineage: lineage(of),
            epoch: Epoch::read(epoch),
            revision: Revision::read(revision),
            step: StepNumber::read(step),
        },
        step: Step::Leave,
        order: if leave { Order::PostgresLeave } else { Order::PostgresStop },
        limit_ms: 1,
    }
}

fn heard(of: u64, epoch: u64, revision: u64) -> Heard {
    Heard { lineage: lineage(of), epoch: Epoch::read(epoch), revision: Revision::read(revision) }
}

/// Every command after everything that an agent can have heard and obeyed.
pub fn agent() -> Verdict {
    let mut looked = 0;
    let numbers: Vec<Number> = (1..=2)
        .flat_map(|of| (1..=3).map(move |epoch| (of, epoch)))
        .flat_map(|(of, epoch)| (1..=3).map(move |revision| (of, epoch, revision)))
        .flat_map(|(of, epoch, revision)| (1..=2).map(move |step| (of, epoch, revision, step)))
        .collect();
    let lines: Vec<Option<(u64, u64, u64)>> = std::iter::once(None)
        .chain(numbers.iter().map(|(of, epoch, revision, _)| Some((*of, *epoch, *revision))))
        .collect();
    for line in &lines {
        let known = line.map(|(of, epoch, revision)| heard(of, epoch, revision));
        for before in std::iter::once(None).chain(numbers.iter().map(Some)) {
            for outcome in [None, Some(Outcome::done())] {
                let obeyed = before.map(|before| Obeyed {
                    command: command(*before, true),
                    outcome: outcome.clone(),
                });
                for now in &numbers {
                    for leave in [true, false] {
                        let judged = judge(known.as_ref(), obeyed.as_ref(), &command(*now, leave));
                        let wanted =
                            expected(*line, before.copied(), outcome.is_some(), *now, leave);
                        let is = match judged {
                            Judgement::Obey => "obeyed",
                            Judgement::Again => "done again",
                            Judgement::Answer(_) => "answered",
                            Judgement::Refuse(_) => "refused",
                        };
                        if is != wanted {
                            return Err(format!(
                                "heard {line:?}, obeyed {before:?}: {now:?} is {is}, not {wanted}"
                            ));
                        }
                        looked += 1;
                    }
                }
            }
        }
        for news in lines.iter().flatten() {
            let next = hear(known.as_ref(), &heard(news.0, news.1, news.2));
            let shrinks = match (&known, &next) {
                (Some(known), Some(next)) => !next.covers(known),
                (None, _) | (Some(_), None) => false,
            };
            if shrinks {
                return Err(format!("what was heard shrinks from {line:?} by {news:?}"));
            }
            looked += 1;
        }
    }
    Ok(looked)
}

fn expected(
    heard: Option<(u64, u64, u64)>,
    before: Option<Number>,
    known: bool,
    now: Number,
    same_order: bool,
) -> &'static str {
    if heard.is_some_and(|heard| heard.0 != now.0 || now.1 < heard.1) {
        return "refused";
    }
    let Some(before) = before else { return "obeyed" };
    if before.0 != now.0 || now < before {
        return "refused";
    }
    match (now == before, same_order, known) {
        (false, _, _) => "obeyed",
        (true, false, _) => "refused",
        (true, true, true) => "answered",
        (true, true, false) => "done again",
    }
}

fn shape() -> Shape {
    let datastore = DatastoreShape {
        announce: Announce::Vote,
        ..settings(1, 0).shape.datastores.pop_first().unwrap().1
    };
    Shape {
        regions: vec![region("region1"), region("region2")],
        datastores: [("pg1".parse().unwrap(), datastore)].into(),
        routes: BTreeMap::new(),
    }
}

fn claim(id: &str, kind: OperationKind, from: &str, target: &str, accept_loss: bool) -> Claim {
    Claim {
        operation: id.parse().unwrap(),
        kind,
        from: region(from),
        target: region(target),
        node: None,
        phase: ClaimPhase::Before,
        accepted: WallMillis(0),
        requested_by: "test".to_owned(),
        reason: "test".to_owned(),
        undo: BTreeMap::new(),
        members: BTreeMap::new(),
        accept_loss,
        old_side_is_down: false,
        superseded: None,
    }
}

/// Every change that anybody could ask for now.
fn changes(record: &Record) -> Vec<Change> {
    let operations = ["aaaaaaaa-1", "aaaaaaaa-2"];
    let mut all = vec![
        Change::Number { datastore: "pg1".parse().unwrap() },
        Change::Expose { datastore: "pg1".parse().unwrap(), reason: "test".to_owned() },
    ];
    let other = if record.writer == region("region1") { "region2" } else { "region1" };
    for id in operations {
        let operation: OperationId = id.parse().unwrap();
        for accept_loss in [false, true] {
            let kind = OperationKind::Switchover;
            let fresh = claim(id, kind, record.writer.as_str(), other, accept_loss);
            let superseded = record.claim.clone().map(Box::new);
            all.push(Change::Claim(Claim { superseded, ..fresh.clone() }));
            all.push(Change::Claim(fresh));
        }
        for number in 1..=2 {
            let name = SyncName::new(node(&format!("pg1.{other}")), number);
            let members = BTreeMap::from([("pg1".parse().unwrap(), name)]);
            for waiting in [BTreeSet::new(), BTreeSet::from(["pg1".parse().unwrap()])] {
                let (operation, members) = (operation.clone(), members.clone());
                all.push(Change::Swap { operation, members, waiting });
            }
        }
        all.push(Change::Abort { operation: operation.clone() });
        all.push(Change::Finish(Finished { operation, end: End::Succeeded }));
    }
    for place in ["region1", "region2"] {
        for number in 1..=2 {
            all.push(Change::Join { member: member(place, number) });
        }
        for mode in [ProtectionMode::MaxAvailability, ProtectionMode::MaxProtection] {
            let (node, reason) = (node(&format!("pg1.{place}")), "test".to_owned());
            all.push(Change::Leave { node, reason, mode });
        }
    }
    all
}

fn member(place: &str, number: u64) -> Member {
    Member {
        name: SyncName::new(node(&format!("pg1.{place}")), number),
        system: SystemId("7".to_owned()),
        timeline: Timeline(1),
        floor: Lsn::ZERO,
    }
}

/// Every order of changes of the record, up to a depth.
pub fn record() -> Verdict {
    let first = first_record(
        "test".parse().unwrap(),
        &shape(),
        lineage(1),
        "run".to_owned(),
        Automatic::default(),
        WallMillis(0),
    );
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([(first, 0)]);
    let mut looked = 0;
    while let Some((record, depth)) = queue.pop_front() {
        for change in changes(&record) {
            let Ok(next) = apply(&record, &change, WallMillis(0)) else { continue };
            looked += 1;
            if let Some(wrong) = wrong(&record, &change, &next) {
                return Err(format!("{wrong}: {change:?} on {record:?}"));
            }
            let mut shape = next.clone();
            // The revision says how often, not what.
            shape.revision = Revision::FIRST;
            if depth < 7 && next.epoch <= Epoch::read(3) && seen.insert(format!("{shape:?}")) {
                queue.push_back((next, depth + 1));
            }
        }
    }
    Ok(looked)
}

fn wrong(record: &Record, change: &Change, next: &Record) -> Option<&'static str> {
    let (before, after) =
        (&record.datastores[&"pg1".parse().unwrap()], &next.datastores[&"pg1".parse().unwrap()]);
    let swaps = matches!(change, Change::Swap { .. });
    if next.revision != record.revision.next() {
        return Some("the revision does not grow by one");
    }
    if (next.epoch != record.epoch) != swaps || (next.writer != record.writer) != swaps {
        return Some("epoch and writer change with a swap only");
    }
    if after.takeover.keys().any(|node| *node.region() == next.writer) {
        return Some("the writer may take over from itself");
    }
    if after.takeover.is_empty() == (after.protection == Protection::Protected) {
        return Some("protected and the takeover set disagree");
    }
    let exposes = matches!(change, Change::Expose { .. });
    if exposes && record.held != next.held {
        return Some("what is held is released by a word that is no rebuild");
    }
    if let Change::Join { member } = change {
        if member.name.membership() != before.memberships {
            return Some("an old membership joins");
        }
        if record.claim.as_ref().is_some_and(|claim| claim.phase != ClaimPhase::After) {
            return Some("somebody joins while the writer is being moved");
        }
    }
    let (Some(was), is) = (&record.claim, &next.claim) else { return None };
    let replaced = |is: &Claim| {
        was.phase == ClaimPhase::After && is.superseded.as_deref() == Some(was)
            || was.phase != ClaimPhase::After && was.superseded.as_deref() == Some(is)
    };
    let same = is.as_ref().is_none_or(|is| is.operation == was.operation || replaced(is));
    if !same {
        return Some("another operation takes the stack");
    }
    let of = match change {
        Change::Swap { operation, .. } | Change::Abort { operation } => Some(operation),
        Change::Finish(finished) => Some(&finished.operation),
        Change::Drive { .. }
        | Change::Claim(_)
        | Change::Number { .. }
        | Change::Join { .. }
        | Change::Leave { .. }
        | Change::Expose { .. }
        | Change::Floors { .. }
        | Change::Arm(_)
        | Change::Born { .. } => None,
    };
    if of.is_some_and(|of| *of != was.operation) {
        return Some("an operation that does not own the stack changes what it does");
    }
    if swaps && was.phase != ClaimPhase::Before {
        return Some("a swap after an abort, or a second one");
    }
    if matches!(change, Change::Abort { .. }) && was.phase == ClaimPhase::After {
        return Some("an abort after the swap");
    }
    if let Change::Swap { members, .. } = change {
        let holds = members.values().all(|name| {
            before.takeover.get(name.node()).is_some_and(|member| member.name == *name)
        });
        if !holds {
            return Some("a swap relies on a member that is none");
        }
        let proven = before.takeover.keys().any(|node| *node.region() == next.writer);
        let old = NodeId::new("pg1".parse().unwrap(), was.from.clone());
        if was.accept_loss && !proven && !next.held.contains_key(&old) {
            return Some("what may hold lost writes is not held");
        }
    }
    None
}

/// Accepted loss beside a silent old side is refused before anything is touched (L5), and a target
/// that is no member without consent (P3).
pub fn readiness() -> Verdict {
    let (settings, lag) = (settings(1, 0), Lag::default());
    let mut record = first_record(
        "test".parse().unwrap(),
        &settings.shape,
        lineage(1),
        "run".to_owned(),
        Automatic::default(),
        WallMillis(0),
    );
    let target = region("region2");
    let timing = Timing::default();
    let mut looked = 0;
    for is_member in [false, true] {
        if is_member {
            let takeover =
                &mut record.datastores.get_mut(&"pg1".parse().unwrap()).unwrap().takeover;
            takeover.insert(node("pg1.region2"), member("region2", 1));
        }
        for old_answers in [false, true] {
            for consent in [Consent::None, Consent::AcceptLoss, Consent::AcceptLossOldSideIsDown] {
                let seen = seen(old_answers);
                let question = Question {
                    settings: &settings,
                    record: &record,
                    seen: &seen,
                    lag: &lag,
                    timing: &timing,
                    now: Moment::ZERO,
                    target: &target,
                    consent,
                };
                let findings = judge_move(&question);
                let fails = |code: &str| {
                    findings.iter().any(|one| one.code == code && one.level == Level::Fail)
                };
                let risky = !old_answers && consent == Consent::AcceptLoss;
                if fails("old-side-not-known-down") != risky {
                    return Err(format!("old side answers: {old_answers}, {consent:?}: L5"));
                }
                let unproven = !is_member && consent == Consent::None;
                if fails("not-in-takeover-set") != unproven {
                    return Err(format!("member: {is_member}, {consent:?}: P3"));
                }
                looked += 1;
            }
        }
    }
    Ok(looked)
}

fn seen(old_answers: bool) -> Seen {
    let mut seen = Seen::default();
    for (place, answers) in [("region1", old_answers), ("region2", true)] {
        let report = AgentReport {
            region: region(place),
            run: "run".to_owned(),
            sequence: 1,
            heard: None,
            nodes: BTreeMap::new(),
            stamp_us: 0,
            peers: BTreeMap::new(),
            refusing: None,
            host: Default::default(),
        };
        let of = seen.regions.entry(region(place)).or_default();
        of.report = answers.then_some((report, Moment::ZERO));
    }
    seen
}
