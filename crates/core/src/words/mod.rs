//! The words of tier0 as types: names, numbers, positions, moments.
//!
//! A value of one of these types is valid; parsing happens once, at the edge. Numbers that must
//! not be compared with each other have different types, or no order at all.

mod moment;
mod names;
mod numbers;
mod position;

pub use moment::{Moment, WallMillis};
pub use names::{
    DatastoreName, InvalidName, Lineage, NodeId, OperationId, Region, Site, StackName, SyncName,
};
pub use numbers::{Epoch, Heard, Revision, Stamp, StampVerdict, StepNumber};
pub use position::{
    InvalidLsn, Lsn, RedisPosition, ReplicationId, SystemId, Timeline, WalPosition,
};
