//! The guards of the safety rules that the core holds, as a closed list. A guard is a place that
//! says no; each is named here, and asked for by name where it stands.
//!
//! In a usual build every guard holds, and the compiler sees a constant. With the feature
//! `mutants`, which nothing but `tests/mutants.rs` uses, one guard of a thread can be taken out: the
//! simulator, the model or the enumerations must notice, or the guard is not tested. One that stands
//! behind another is taken out together with that one.

use crate::steps::Step;

macro_rules! guards {
    ($($(#[$doc:meta])* $name:ident = $rule:literal,)*) => {
        /// One guard.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Guard { $($(#[$doc])* $name,)* }

        impl Guard {
            /// Every guard.
            pub const ALL: &'static [Guard] = &[$(Guard::$name,)*];

            /// The safety rule that it serves, as `docs/guarantees.md` numbers them.
            pub fn rule(self) -> &'static str {
                match self { $(Guard::$name => $rule,)* }
            }
        }
    };
}

guards! {
    /// An agent refuses a command of an epoch that is over.
    OldEpoch = "R1",
    /// An agent refuses a command older than the newest it obeyed.
    OldStamp = "R1",
    /// An agent refuses another order under a stamp that it obeyed.
    SameStampOtherOrder = "R1",
    /// An agent answers a command that it performed from the outcome, and does not do it again.
    AnsweredOnce = "R1",
    /// No command is sent while a change of the record is under way.
    SendsOnlyWhenStored = "R1",
    /// An agent refuses a command of another lineage.
    ForeignLineage = "R2",
    /// What an agent has heard only grows.
    HeardOnlyGrows = "R2",
    /// A record older than what an agent has heard freezes everything.
    OldRecordFreezes = "R2",
    /// A record older than what this run has stored or read freezes everything.
    StoreGoesOnlyForward = "R2",
    /// A run compares the record with what an agent has heard before it changes it.
    HearsBeforeDriving = "R2",
    /// The target has heard of the record from which the swap starts.
    SwapNeedsHeard = "R2",
    /// A second operation does not take the stack from the first.
    OneClaim = "R4",
    /// Only the operation that owns the stack moves, aborts or finishes it.
    OnlyTheOwner = "R4",
    /// The old master is let go on only after the abort is stored.
    RecordBeforeUnfence = "R4",
    /// An operation that is being aborted does not swap.
    NoSwapAfterAbort = "R4",
    /// An operation that has swapped is not aborted.
    NoAbortAfterSwap = "R4",
    /// An operation that another run left before the point of no return goes back.
    ResumesBackwards = "R4",
    /// A member is stored only after its proof.
    JoinAfterProof = "P1",
    /// Commits stop waiting for a member only after it has left the record.
    RecordBeforeLeave = "P1",
    /// Only the newest membership may join.
    NewestMembership = "P2",
    /// Nobody joins while the writer is being moved.
    NoJoinWhileMoving = "P2",
    /// A move begins only where the target is a member, or loss was accepted.
    MoveNeedsMember = "P3",
    /// The swap counts a member that left in between as gone.
    SwapNeedsMember = "P3",
    /// Who is no member is promoted only where the old primary is known to have stopped.
    PromoteNeedsFence = "P4",
    /// Without a member to promote, the old side still answers when the writer is moved.
    SwapNeedsOldSide = "P4",
    /// The stop goes before the promotion.
    PromoteAfterStop = "P5",
    /// The takeover sets are empty after the writer moved.
    SwapEmptiesTakeover = "P6",
    /// Data that may hold what was lost with consent is noted as held.
    LossIsHeld = "P6",
    /// What is held is left alone until an operator releases it.
    HeldIsLeftAlone = "P6",
    /// The writer's server is started with the names of the record.
    StartsWithNames = "P8",
    /// Clients are let in only after the start.
    AdmitAfterStart = "P8",
    /// A writer that is not heard is not degraded.
    SilentIsNotDegraded = "P9",
    /// A copy is given up by hand only while the writer's own answers.
    RebuildNeedsWriter = "P9",
    /// The swap comes after pause, equal offsets and fence.
    SwapAfterFence = "D1",
    /// An old master that the target still reaches is not left behind.
    MasterIsAsked = "D1",
    /// A grant counts from the stamp that it answers, however late it comes.
    CountsFromStamp = "L1",
    /// A grant answers only stamps that came before a read that found its granter acting.
    GrantFollowsRead = "L1",
    /// Whoever must wait for a lease waits longer than its holder counts.
    DriftIsCounted = "L1",
    /// A region that nobody vouches for is held.
    OverIsHeld = "L2",
    /// What was said of an older epoch says nothing any more.
    NewsEndsWord = "L2",
    /// A server that is held where another region is the writer is ended, never released.
    SupersededIsEnded = "L2",
    /// A server that still serves when another region is the writer and its lease is over is held.
    SupersededIsHeld = "L2",
    /// Nobody is promoted before the old side's lease is over.
    LeaseIsAwaited = "L3",
    /// A server that is down counts as gone only once its agent has heard of the new epoch.
    DownNeedsNews = "L3",
    /// A region whose standby is about to join needs a lease.
    JoinNeedsLease = "L4",
    /// A peer vouches only for the epoch that it has heard of.
    VouchesInOneEpoch = "L4",
    /// Who is, or may be, the writer vouches for nobody else.
    WriterVouchesForNobody = "L4",
    /// A promotion waits until nobody relies on it not to happen.
    PromiseIsKept = "L4",
    /// An agent keeps what its predecessor promised.
    PromiseOutlivesAgent = "L4",
    /// Accepted loss beside a silent old side needs a word that it is down, before the move.
    LossNeedsOldSideDown = "L5",
    /// Nothing is repaired while the writer is being moved.
    NoRepairWhileMoving = "O1",
    /// Repairs end when the writer is moved.
    RepairsGiveWay = "O1",
    /// The writer is moved without being asked only where that is armed.
    OnlyArmedMoves = "O3",
    /// A region's silence moves the writer only by a majority of the sites.
    MajoritySaysSo = "O3",
    /// The old primary is stopped only after the swap.
    StopAfterSwap = "O2",
    /// A Redis target is promoted only after the swap.
    PromoteRedisAfterSwap = "O2",
}

impl Guard {
    /// Whether this guard is in place: always, but in a test of mutants.
    #[cfg(not(feature = "mutants"))]
    pub(crate) const fn holds(self) -> bool {
        true
    }

    /// Whether this guard is in place in this thread.
    #[cfg(feature = "mutants")]
    pub(crate) fn holds(self) -> bool {
        !TAKEN_OUT.get().contains(&Some(self))
    }

    /// The guard behind which this one stands: while that one holds, nothing would happen without
    /// this one.
    pub fn behind(self) -> Option<Guard> {
        match self {
            Guard::RecordBeforeLeave | Guard::RecordBeforeUnfence => {
                Some(Guard::SendsOnlyWhenStored)
            }
            _ => None,
        }
    }

    /// The guard that is the order of these two steps.
    fn of_order(step: Step, before: Step) -> Option<Guard> {
        match (step, before) {
            (Step::RecordJoin, Step::JoinProve) => Some(Guard::JoinAfterProof),
            (Step::Leave, Step::RecordLeave) => Some(Guard::RecordBeforeLeave),
            (Step::Unfence, Step::RecordAbort) => Some(Guard::RecordBeforeUnfence),
            (Step::Promote, Step::Stop) => Some(Guard::PromoteAfterStop),
            (Step::Admit, Step::Start) => Some(Guard::AdmitAfterStart),
            (Step::Swap, Step::CatchUpFenced) => Some(Guard::SwapAfterFence),
            (Step::Stop, Step::Swap) => Some(Guard::StopAfterSwap),
            (Step::PromoteRedis, Step::Swap) => Some(Guard::PromoteRedisAfterSwap),
            _ => None,
        }
    }
}

/// Whether a step waits for this one of those before it.
pub(crate) fn waits(step: Step, before: Step) -> bool {
    Guard::of_order(step, before).is_none_or(Guard::holds)
}

#[cfg(feature = "mutants")]
thread_local! {
    static TAKEN_OUT: std::cell::Cell<[Option<Guard>; 2]> =
        const { std::cell::Cell::new([None; 2]) };
}

/// Take these guards out in this thread, and put all others back.
#[cfg(feature = "mutants")]
pub fn take_out(guards: [Option<Guard>; 2]) {
    TAKEN_OUT.set(guards);
}
