//! What the HTTP side needs from the side that stores: four questions and their closed answers.
//! The seam at which handlers are tested without a database.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use tier0_core::words::Region;

use crate::metrics::Metrics;
use crate::reading::{Batch, DeviceId, Reading};
use crate::selection::Selection;

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it is stored, and the database acknowledged that.
    Stored {
        /// How many readings are new.
        new: u64,
        /// How many were stored before under the same device and time. They were not changed.
        duplicates: u64,
    },
    /// None of it is stored.
    NotStored {
        /// Why, in one sentence.
        why: String,
    },
    /// Nobody knows. Sending it again is safe, and settles it.
    Unknown {
        /// Why, in one sentence.
        why: String,
    },
    /// The database refused the values; sending them again will not help.
    Rejected {
        /// Why, in one sentence.
        why: String,
    },
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The Redis of this region. Up to 30 seconds old.
    Cache,
    /// The PostgreSQL of this region.
    Local,
    /// The PostgreSQL of another region, because the one of this region did not answer.
    Remote,
}

/// The newest reading of a device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Latest {
    /// There is one.
    Found {
        /// It.
        reading: Reading,
        /// Where it was found.
        source: Source,
    },
    /// The device never sent one, as far as this region knows.
    Absent,
    /// Nothing answered.
    Unavailable {
        /// Why, in one sentence.
        why: String,
    },
}

/// Readings of a device or a site.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Page {
    /// As many as were asked for, or all there are.
    Found {
        /// In the order of time.
        readings: Vec<Reading>,
        /// Where they were found.
        source: Source,
    },
    /// Nothing answered.
    Unavailable {
        /// Why, in one sentence.
        why: String,
    },
}

/// What a node of PostgreSQL says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// It accepts writes.
    Writer,
    /// It answers, and accepts no writes.
    Replica,
    /// It does not answer.
    Unreachable,
}

/// One node in the answer to "how are you".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeHealth {
    /// Its region.
    pub(crate) region: Region,
    /// What it says of itself.
    pub(crate) role: Role,
}

/// How the service sees its datastores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    /// The region of this service.
    pub(crate) region: Region,
    /// The nodes of PostgreSQL.
    pub(crate) postgres: Vec<NodeHealth>,
    /// Whether the Redis of this region answers.
    pub(crate) cache_reachable: bool,
}

/// The side that stores.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Store a batch, all of it or nothing.
    fn write(&self, batch: Arc<Batch>) -> impl Future<Output = Written> + Send;
    /// The newest reading of a device.
    fn latest(&self, device: &DeviceId) -> impl Future<Output = Latest> + Send;
    /// The readings that are selected.
    fn select(&self, selection: &Selection) -> impl Future<Output = Page> + Send;
    /// How the datastores are. Answers within a second.
    fn health(&self) -> impl Future<Output = Health> + Send;
    /// What is counted.
    fn metrics(&self) -> &Metrics;
}
