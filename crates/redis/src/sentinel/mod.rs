//! The Sentinels of one datastore, asked and told from outside.
//!
//! Sentinel's own way to move a master (`SENTINEL FAILOVER`) loses acknowledged writes. So tier0
//! moves it and then tells them, by the protocol Sentinels use among themselves: a vote in a fresh
//! epoch (`vote`) and a hello with that epoch (`hello`). That protocol is not a documented API; it
//! is the same in Redis 5 to 7 and Valkey 8, and `mode = "documented"` goes without (`failover`).
//!
//! Sentinels are asked without a password: they listen where only the stack's hosts reach them.

mod announce;
pub mod conf;
mod failover;
pub mod hello;
mod round;
pub(crate) mod state;
mod vote;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tier0_core::observe::SentinelView;
use tokio::time::Instant;

use crate::connection::{AskError, Batch, Door};
use crate::settings::{ProbeDeadlines, RedisNodeSettings};
use round::Standing;
use state::SentinelState;

/// The quorum that no number of Sentinels reaches: with it Sentinels never find a master
/// objectively down (sentinel.c, sentinelCheckObjectivelyDown), and `SENTINEL FAILOVER` by hand
/// still works. The configured quorum stays in the file that a Sentinel is first started with.
pub const AUTHORITY_QUORUM: u64 = 99;

/// What came of telling Sentinels something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentinelsTold {
    /// So many were told now, and it is so.
    pub told: u32,
    /// For so many it was so already.
    pub already: u32,
    /// So many are configured.
    pub of: u32,
}

/// One Sentinel.
pub(crate) struct Sentinel {
    pub address: SocketAddr,
    pub door: Door,
    last: Mutex<Result<SentinelState, String>>,
}

/// All Sentinels of a datastore.
pub(crate) struct Sentinels {
    /// The name under which they know the datastore.
    pub name: String,
    pub all: Vec<Arc<Sentinel>>,
    pub deadlines: ProbeDeadlines,
    /// The highest epoch that was used here for a vote. `SENTINEL MASTER` shows only epochs that
    /// led to a configuration, so starting from this one saves a refused round.
    used_epoch: AtomicU64,
    refreshed: Mutex<Option<Instant>>,
    refreshing: AtomicBool,
}

impl Sentinels {
    pub fn new(settings: &RedisNodeSettings) -> Self {
        let all = settings.redis.sentinels.iter().map(|sentinel| {
            Arc::new(Sentinel {
                address: sentinel.address,
                door: Door::new(sentinel.address, None),
                last: Mutex::new(Err("not asked yet".to_owned())),
            })
        });
        Sentinels {
            name: settings.redis.master_name.clone(),
            all: all.collect(),
            deadlines: settings.deadlines,
            used_epoch: AtomicU64::new(0),
            refreshed: Mutex::new(None),
            refreshing: AtomicBool::new(false),
        }
    }

    /// How many are configured.
    pub fn count(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// How many are more than half.
    pub fn majority(&self) -> usize {
        self.all.len() / 2 + 1
    }

    /// What each said last, by address.
    pub fn views(&self) -> BTreeMap<String, SentinelView> {
        self.all.iter().map(|one| (one.address.to_string(), one.view())).collect()
    }

    /// For how long the master counts as down, by the Sentinel that says so longest.
    pub fn master_down_for(&self) -> Duration {
        let longest = self.all.iter().filter_map(|one| one.known().ok()?.down_for_ms).max();
        Duration::from_millis(longest.unwrap_or(0))
    }

    /// Ask all again, unless that was done lately or is under way. Comes back at once.
    pub fn refresh_in_background(self: &Arc<Self>) {
        let due = self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none_or(|at| at.elapsed() >= self.deadlines.sentinel_refresh);
        if !due || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let sentinels = Arc::clone(self);
        tokio::spawn(async move {
            sentinels.refresh().await;
            sentinels.refreshing.store(false, Ordering::Release);
        });
    }

    /// Ask all, each under its own deadline.
    pub async fn refresh(&self) {
        let asked = self.all.iter().map(|one| one.look(&self.name, self.deadlines.sentinel));
        futures_util::future::join_all(asked).await;
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// See [`crate::RedisNode::take_authority`].
    pub async fn take_authority(&self) -> SentinelsTold {
        let told = self.all.iter().map(|one| async {
            // A view from before a restart of the Sentinel would hide that it forgot.
            let state = match one.known() {
                Ok(state) => state,
                Err(_) => one.look(&self.name, self.deadlines.sentinel).await.ok()?,
            };
            if state.quorum == Some(AUTHORITY_QUORUM) {
                return Some(false);
            }
            let quorum = AUTHORITY_QUORUM.to_string();
            let batch = Batch::new().tell(["SENTINEL", "SET", &self.name, "quorum", &quorum]);
            one.door.ask(batch, self.deadlines.sentinel).await.ok()?;
            one.look(&self.name, self.deadlines.sentinel).await.ok()?;
            Some(true)
        });
        let answers = futures_util::future::join_all(told).await;
        let count = |wanted| {
            let number = answers.iter().filter(|answer| **answer == Some(wanted)).count();
            u32::try_from(number).unwrap_or(u32::MAX)
        };
        SentinelsTold { told: count(true), already: count(false), of: self.count() }
    }
}

impl Sentinel {
    /// What it said last, or why it said nothing.
    pub fn known(&self) -> Result<SentinelState, String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it answered when it was asked last.
    pub fn standing(&self) -> Standing {
        match self.known() {
            Ok(_) => Standing::Living,
            Err(_) => Standing::Gone,
        }
    }

    pub fn remember(&self, said: Result<SentinelState, String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// Ask it, and remember what it says.
    pub async fn look(&self, name: &str, within: Duration) -> Result<SentinelState, AskError> {
        let batch = Batch::new()
            .tell(["SENTINEL", "MASTER", name])
            .tell(["SENTINEL", "SENTINELS", name])
            .tell(["SENTINEL", "MYID"]);
        let said = self.door.ask(batch, within).await.and_then(|replies| {
            SentinelState::read(&replies).ok_or_else(|| AskError::Server {
                address: self.address,
                text: format!("nothing usable about {name}"),
            })
        });
        self.remember(said.clone().map_err(|error| error.to_string()));
        said
    }

    fn view(&self) -> SentinelView {
        match self.known() {
            Ok(state) => SentinelView {
                master: Some(format!("{}:{}", state.ip, state.port)),
                config_epoch: Some(state.config_epoch),
                flags: Some(state.flags),
                peers: state.peer_count,
                replicas: state.replica_count,
                error: None,
            },
            Err(error) => SentinelView {
                master: None,
                config_epoch: None,
                flags: None,
                peers: None,
                replicas: None,
                error: Some(error),
            },
        }
    }
}
