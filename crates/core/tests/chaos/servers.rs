//! Model servers that keep what was written, and know what was acknowledged.
//!
//! A PostgreSQL primary acknowledges a write when its names are empty, or when the standby that
//! streams under that very name has it. Nothing else acknowledges anything.

use std::collections::{BTreeMap, BTreeSet};

use tier0_core::observe::ProcessState;
use tier0_core::record::DatastoreKind;
use tier0_core::words::{DatastoreName, Epoch, NodeId, SyncName};

/// What is in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Empty,
    Primary,
    Standby,
}

/// A join that the agent undoes by itself unless it is proven.
#[derive(Debug, Clone)]
pub struct Joining {
    pub name: String,
    pub until: u64,
    pub proven: bool,
    /// For whom commits waited before.
    pub before: String,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub kind: DatastoreKind,
    pub process: ProcessState,
    pub base: Base,
    pub admitted: bool,
    pub names: String,
    pub joining: Option<Joining>,
    pub timeline: u32,
    pub log: Vec<u32>,
    /// Written and not yet acknowledged: the length of the log with it, and the write.
    pub pending: Vec<(usize, u32)>,
    pub follows: Option<NodeId>,
    pub name: String,
    pub marker: Option<SyncName>,
    pub streaming: bool,
    pub min_replicas: u64,
    pub paused_until: u64,
    /// Since when the oldest commit waits.
    pub waiting_since: Option<u64>,
    /// Since when nothing has befallen it.
    pub well_since: u64,
    /// Its agent has noted that it holds it.
    pub held: bool,
    pub held_since: u64,
    /// Its agent has stopped its process.
    pub still: bool,
    /// The epoch in which it was last told to serve as the writer's.
    pub serves_in: Epoch,
    /// It was told so when another had been promoted in a newer epoch.
    pub late: bool,
}

impl Server {
    pub fn new(kind: DatastoreKind, first: bool) -> Server {
        let postgres = kind == DatastoreKind::Postgres;
        Server {
            kind,
            process: if first || !postgres { ProcessState::Stopped } else { ProcessState::NoData },
            base: match (first, postgres) {
                (true, _) | (_, false) => Base::Primary,
                (false, true) => Base::Empty,
            },
            admitted: false,
            names: String::new(),
            joining: None,
            timeline: 1,
            log: Vec::new(),
            pending: Vec::new(),
            follows: None,
            name: String::new(),
            marker: None,
            streaming: false,
            min_replicas: 99,
            paused_until: 0,
            waiting_since: None,
            well_since: 0,
            held: false,
            held_since: 0,
            still: false,
            serves_in: Epoch::FIRST,
            late: false,
        }
    }

    pub fn runs(&self) -> bool {
        self.shown() == ProcessState::Running
    }

    /// How its process looks: one that is held answers nobody.
    pub fn shown(&self) -> ProcessState {
        match self.process {
            ProcessState::Running if self.still => ProcessState::Silent,
            other => other,
        }
    }

    pub fn is_primary(&self) -> bool {
        self.runs() && self.base == Base::Primary
    }

    /// The process ends; what it had not acknowledged nobody will hear of.
    pub fn end(&mut self) {
        if self.base != Base::Empty {
            self.process = ProcessState::Stopped;
        }
        self.admitted = false;
        self.streaming = false;
        self.pending.clear();
        self.waiting_since = None;
        self.paused_until = 0;
        self.still = false;
    }

    /// The process stands still, and nothing else about it changes.
    pub fn freeze(&mut self) {
        if self.runs() {
            self.process = ProcessState::Silent;
        }
    }

    pub fn thaw(&mut self) {
        if self.process == ProcessState::Silent {
            self.process = ProcessState::Running;
        }
    }

    pub fn lose_disk(&mut self) {
        self.end();
        self.base = Base::Empty;
        self.process = ProcessState::NoData;
        self.log.clear();
        self.names.clear();
        self.joining = None;
        self.marker = None;
        self.follows = None;
    }
}

/// What clients were told.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// By datastore.
    pub writes: BTreeMap<DatastoreName, BTreeSet<u32>>,
    /// The newest timeline on which anybody acknowledged anything.
    pub timeline: BTreeMap<DatastoreName, u32>,
    /// Lost although somebody had been told, with the consent of an operator.
    pub accepted_loss: usize,
    pub count: usize,
}

impl Acknowledged {
    pub fn write(&mut self, node: &NodeId, timeline: u32, write: u32) {
        let newest = self.timeline.entry(node.datastore().clone()).or_default();
        assert!(
            timeline >= *newest,
            "{node} acknowledges on timeline {timeline}, another did on {newest}"
        );
        *newest = timeline;
        self.writes.entry(node.datastore().clone()).or_default().insert(write);
        self.count += 1;
    }

    pub fn missing(&self, name: &DatastoreName, log: &[u32]) -> Vec<u32> {
        let has: BTreeSet<u32> = log.iter().copied().collect();
        let writes = self.writes.get(name);
        writes.map(|writes| writes.difference(&has).copied().collect()).unwrap_or_default()
    }
}
