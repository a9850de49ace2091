//! Routes: what stands between clients and a datastore's writer, what it can be told, and what is
//! seen of it. A route lives beside clients, one in each region, and is looked after by that
//! region's agent; its id has the form of a node's, and its orders carry stamps like any other.
//!
//! Left out: how a route is told (the adapters), and when (the steps).

use serde::{Deserialize, Serialize};

use crate::observe::ProcessState;
use crate::words::{DatastoreName, Epoch, Region};

/// What a route can be told. The comment of each says what "already done" looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "route", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RouteOrder {
    /// New transactions wait. Done when no open one is left or `drain_ms` have passed: nobody is
    /// cancelled. Already held: the time begins anew.
    Hold {
        /// How long open transactions are waited for.
        drain_ms: u64,
        /// The hold ends by itself after this long, wherever the route points then.
        hold_ms: u64,
    },
    /// Point at the writer of this epoch; refused where it points by a newer one. Done when the
    /// route itself says that it does.
    Switch {
        /// The epoch.
        epoch: Epoch,
        /// Its writer.
        to: Region,
    },
    /// Point there if it does not yet, and let clients go on. Done when a statement came back
    /// through the route from a server that takes writes.
    Release {
        /// The epoch.
        epoch: Epoch,
        /// Its writer.
        to: Region,
    },
}

/// One route, as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteShape {
    /// The datastore whose clients it serves.
    pub datastore: DatastoreName,
}

/// One route as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    /// Whether it answers.
    pub process: ProcessState,
    /// Whether clients are held.
    pub held: bool,
    /// Where it points; `None` where that is no region of the stack.
    pub to: Option<Region>,
    /// By which epoch.
    pub epoch: Option<Epoch>,
    /// Clients in a transaction.
    pub active: u32,
    /// Clients that wait.
    pub waiting: u32,
    /// What went wrong when looking, if anything did.
    pub error: Option<String>,
}
