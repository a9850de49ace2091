//! Every way in which the authority record changes, and nothing else changes it.
//!
//! A change is applied to the record that is known to be stored; the driver stores the result by
//! compare-and-swap. A change that no longer makes sense on the record it meets is refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::guard::Guard;
use crate::order::Refusal;
use crate::record::{
    Automatic, Claim, ClaimPhase, DatastoreKind, DatastoreRecord, Finished, Member, OperationKind,
    Protection, RECORD_FORMAT, Record,
};
use crate::words::{
    DatastoreName, Epoch, Heard, Lineage, Lsn, NodeId, OperationId, Region, Revision, StackName,
    SyncName, WallMillis,
};

use crate::observe::{ProtectionMode, Shape};

/// One change of the record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// This run begins to act (R4).
    Drive {
        /// Which run.
        driver: String,
    },
    /// An operation takes the stack; the intent of R5.
    Claim(Claim),
    /// The point of no return: one more epoch, another writer, takeover sets empty, exposed.
    Swap {
        /// By which operation.
        operation: OperationId,
        /// The memberships it relies on: each must still be in the takeover set.
        members: BTreeMap<DatastoreName, SyncName>,
        /// The datastores whose commits wait on the new side until a standby has joined (P9).
        waiting: BTreeSet<DatastoreName>,
    },
    /// The abort of an operation; it and `Swap` start from one revision, so one of them fails.
    Abort {
        /// Which operation.
        operation: OperationId,
    },
    /// The operation leaves the record.
    Finish(Finished),
    /// A new membership number is given out.
    Number {
        /// Of which datastore.
        datastore: DatastoreName,
    },
    /// A proven member enters the takeover set.
    Join {
        /// The member.
        member: Member,
    },
    /// A member leaves the takeover set, before PostgreSQL stops waiting for it (P1); a node that
    /// is held is released.
    Leave {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: String,
        /// What commits do from then on (P9).
        mode: ProtectionMode,
    },
    /// A person says that commits go on with a single copy, or the configuration does again. What is
    /// held stays held.
    Expose {
        /// Of which datastore.
        datastore: DatastoreName,
        /// Why.
        reason: String,
    },
    /// The floors of members are raised (P3).
    Floors {
        /// New floors.
        floors: BTreeMap<NodeId, Lsn>,
    },
    /// A person says whether the writer may be moved without being asked.
    Arm(Automatic),
    /// A Redis datastore holds data from now on.
    Born {
        /// Which datastore.
        datastore: DatastoreName,
    },
}

/// The first record of a stack.
pub fn first_record(
    stack: StackName,
    shape: &Shape,
    lineage: Lineage,
    driver: String,
    automatic: Automatic,
    wall: WallMillis,
) -> Record {
    let datastores = shape
        .datastores
        .iter()
        .map(|(name, datastore)| {
            let protection = match datastore.kind {
                DatastoreKind::Postgres => Protection::Exposed {
                    since: wall,
                    reason: "no standby has joined yet".to_owned(),
                },
                DatastoreKind::Redis => Protection::BestEffort,
            };
            let record = DatastoreRecord {
                kind: datastore.kind,
                takeover: BTreeMap::new(),
                protection,
                memberships: 0,
            };
            (name.clone(), record)
        })
        .collect();
    Record {
        format: RECORD_FORMAT,
        stack,
        lineage,
        epoch: Epoch::FIRST,
        revision: Revision::FIRST,
        writer: shape.regions[0].clone(),
        datastores,
        driver,
        held: BTreeMap::new(),
        automatic,
        claim: None,
        finished: None,
    }
}

/// The record to begin with after the store was lost or restored from a copy (R2): above everything
/// that any agent has heard, in the same lineage, with empty takeover sets. `first` is the stack's
/// [`first_record`].
pub fn adopted_record(first: Record, writer: Region, newest: &Heard, wall: WallMillis) -> Record {
    let mut record = first;
    record.lineage = newest.lineage.clone();
    record.writer = writer;
    // The writer may be another than before, so the epoch is new as well.
    record.epoch = newest.epoch.next();
    record.revision = newest.revision.next();
    for datastore in record.datastores.values_mut() {
        // Each membership was given out by a revision of its own, so no number this high has been
        // used, whatever the lost record said.
        datastore.memberships = record.revision.number();
        if datastore.kind == DatastoreKind::Postgres {
            datastore.protection = Protection::Exposed {
                since: wall,
                reason: "the record was adopted; no standby has joined since".to_owned(),
            };
        }
    }
    record
}

/// The record after a change, one revision on; or why the change cannot be made on this record.
pub fn apply(record: &Record, change: &Change, wall: WallMillis) -> Result<Record, Refusal> {
    let mut next = record.clone();
    next.revision = record.revision.next();
    match change {
        Change::Drive { driver } => next.driver = driver.clone(),
        Change::Claim(claim) => {
            may_claim(record.claim.as_ref(), claim.superseded.as_deref())?;
            next.claim = Some(claim.clone());
        }
        Change::Swap { operation, members, waiting } => {
            for (name, member) in members {
                still_member(record, name, member)?;
            }
            swap(record, &mut next, operation, waiting, wall)?;
        }
        Change::Abort { operation } => {
            let claim = claimed(&mut next, operation)?;
            if claim.phase == ClaimPhase::After && Guard::NoAbortAfterSwap.holds() {
                return Err(Refusal::new(
                    "past-point-of-no-return",
                    "the writer has moved; the operation can only go forward",
                ));
            }
            claim.phase = ClaimPhase::Aborting;
        }
        Change::Finish(finished) => {
            let superseded = claimed(&mut next, &finished.operation)?.superseded.take();
            next.claim = superseded.map(|claim| *claim);
            next.finished = Some(finished.clone());
        }
        Change::Number { datastore } => {
            datastore_of(&mut next, datastore)?.memberships += 1;
        }
        Change::Join { member } => join(record, &mut next, member)?,
        Change::Leave { node, reason, mode } => {
            next.held.remove(node);
            let datastore = datastore_of(&mut next, node.datastore())?;
            datastore.takeover.remove(node);
            if datastore.takeover.is_empty() {
                datastore.protection = match (mode, &datastore.protection) {
                    // Commits that go on already go on.
                    (ProtectionMode::MaxAvailability, _) | (_, Protection::Exposed { .. }) => {
                        exposed(&datastore.protection, wall, reason)
                    }
                    (ProtectionMode::MaxProtection, _) => waits(reason),
                };
            }
        }
        Change::Expose { datastore, reason } => {
            let datastore = datastore_of(&mut next, datastore)?;
            datastore.takeover.clear();
            datastore.protection = exposed(&datastore.protection, wall, reason);
        }
        Change::Floors { floors } => {
            for (node, floor) in floors {
                let datastore = datastore_of(&mut next, node.datastore())?;
                if let Some(member) = datastore.takeover.get_mut(node) {
                    member.floor = member.floor.max(*floor);
                }
            }
        }
        Change::Arm(automatic) => next.automatic = automatic.clone(),
        Change::Born { datastore } => {
            let datastore = datastore_of(&mut next, datastore)?;
            datastore.memberships = datastore.memberships.max(1);
        }
    }
    Ok(next)
}

/// One operation owns the stack (R4). Another one takes its place only where it has moved the writer
/// and can go no further: whoever asks has seen just that claim.
fn may_claim(owner: Option<&Claim>, superseded: Option<&Claim>) -> Result<(), Refusal> {
    let replaces = owner == superseded && owner.is_none_or(|it| it.phase == ClaimPhase::After);
    if replaces || !Guard::OneClaim.holds() {
        return Ok(());
    }
    Err(match owner {
        Some(owner) => owns_the_stack(owner.kind, &owner.operation),
        None => Refusal::new("operation-running", "the operation to be replaced has just ended"),
    })
}

/// The refusal of whoever comes second.
pub(super) fn owns_the_stack(kind: OperationKind, operation: &OperationId) -> Refusal {
    Refusal::new("operation-running", format!("{kind} {operation} owns the stack"))
}

/// A leave that was on its way to the store when the move was asked for comes first.
fn still_member(record: &Record, name: &DatastoreName, member: &SyncName) -> Result<(), Refusal> {
    let takeover = record.datastores.get(name).map(|datastore| &datastore.takeover);
    let found = takeover.and_then(|takeover| takeover.get(member.node()));
    if found.is_some_and(|found| found.name == *member) || !Guard::SwapNeedsMember.holds() {
        return Ok(());
    }
    Err(Refusal::new(
        "not-in-takeover-set",
        format!("{member} left the takeover set while the operation was prepared"),
    ))
}

fn swap(
    record: &Record,
    next: &mut Record,
    operation: &OperationId,
    waiting: &BTreeSet<DatastoreName>,
    wall: WallMillis,
) -> Result<(), Refusal> {
    let claim = claimed(next, operation)?;
    if claim.phase != ClaimPhase::Before && Guard::NoSwapAfterAbort.holds() {
        return Err(Refusal::new("aborting", "the operation is being aborted"));
    }
    claim.phase = ClaimPhase::After;
    claim.superseded = None;
    let target = claim.target.clone();
    let (from, accept_loss) = (claim.from.clone(), claim.accept_loss);
    for (name, datastore) in &record.datastores {
        let proven = datastore.takeover.keys().any(|node| *node.region() == target);
        let lossy = accept_loss && !proven && Guard::LossIsHeld.holds();
        if lossy && datastore.kind == DatastoreKind::Postgres {
            let node = NodeId::new(name.clone(), from.clone());
            next.held.insert(node, format!("loss was accepted by operation {operation}"));
        }
    }
    let claim = claimed(next, operation)?;
    for (name, datastore) in &record.datastores {
        for (node, member) in &datastore.takeover {
            if *node.region() == target {
                claim.members.insert(name.clone(), member.clone());
            }
        }
    }
    next.epoch = record.epoch.next();
    next.writer = target;
    for (name, datastore) in &mut next.datastores {
        if Guard::SwapEmptiesTakeover.holds() {
            datastore.takeover.clear();
        }
        let reason = "the writer moved; the old side has not joined yet";
        if datastore.kind == DatastoreKind::Postgres {
            datastore.protection = match waiting.contains(name) {
                true => waits(reason),
                false => exposed(&datastore.protection, wall, reason),
            };
        }
    }
    Ok(())
}

fn join(record: &Record, next: &mut Record, member: &Member) -> Result<(), Refusal> {
    let node = member.name.node();
    let writer = next.writer.clone();
    let datastore = datastore_of(next, node.datastore())?;
    if *node.region() == writer {
        return Err(Refusal::new("is-writer", format!("{node} is the writer's own node")));
    }
    let newest = member.name.membership() == datastore.memberships;
    if !newest && Guard::NewestMembership.holds() {
        return Err(Refusal::new(
            "old-membership",
            format!("{} is not the newest membership, {} is", member.name, datastore.memberships),
        ));
    }
    // One that has swapped relies on no member any more, and may never end by itself.
    let moving = record
        .claim
        .as_ref()
        .is_some_and(|claim| claim.kind.moves_writer() && claim.phase != ClaimPhase::After);
    if moving && Guard::NoJoinWhileMoving.holds() {
        return Err(Refusal::new("operation-running", "the writer is being moved"));
    }
    // Exactly one name is waited for (P2): an earlier member is not one any more.
    datastore.takeover.clear();
    datastore.takeover.insert(node.clone(), member.clone());
    datastore.protection = Protection::Protected;
    Ok(())
}

/// Commits wait until somebody joins: nothing is acknowledged that only one copy has.
fn waits(reason: &str) -> Protection {
    Protection::AtRisk { reason: format!("{reason}; commits wait until a standby has joined") }
}

fn exposed(before: &Protection, wall: WallMillis, reason: &str) -> Protection {
    match before {
        Protection::Exposed { since, .. } => {
            Protection::Exposed { since: *since, reason: reason.to_owned() }
        }
        Protection::Protected | Protection::AtRisk { .. } | Protection::BestEffort => {
            Protection::Exposed { since: wall, reason: reason.to_owned() }
        }
    }
}

fn claimed<'a>(next: &'a mut Record, operation: &OperationId) -> Result<&'a mut Claim, Refusal> {
    let Some(claim) = &mut next.claim else {
        return Err(Refusal::new("not-the-owner", "no operation owns the stack"));
    };
    if claim.operation == *operation || !Guard::OnlyTheOwner.holds() {
        return Ok(claim);
    }
    Err(Refusal::new("not-the-owner", format!("{} {} owns the stack", claim.kind, claim.operation)))
}

fn datastore_of<'a>(
    next: &'a mut Record,
    name: &DatastoreName,
) -> Result<&'a mut DatastoreRecord, Refusal> {
    next.datastores
        .get_mut(name)
        .ok_or_else(|| Refusal::new("unknown-datastore", format!("there is no datastore {name}")))
}
