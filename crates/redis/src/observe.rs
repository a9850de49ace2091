//! The cheap look at a node. One round trip on a kept connection under one deadline; Sentinels are
//! asked in the background and answered for from memory.

use std::time::Duration;

use tier0_core::observe::{ProcessState, RedisPersistence, RedisRole, RedisView};
use tokio::time::Instant;

use crate::connection::AskError;
use crate::disk::OnDisk;
use crate::info::ServerInfo;
use crate::last_seen::LastSeen;
use crate::node::RedisNode;
use crate::process;

/// How often the position of a master is written down.
const WRITE_DOWN: Duration = Duration::from_secs(1);

impl RedisNode {
    /// Look at the node. Comes back within the observe deadline, whatever the server does; a
    /// server that is there and does not answer is [`ProcessState::Silent`].
    pub async fn observe(&self) -> RedisView {
        let binary = &self.settings.redis.server_binary;
        let mut view = empty_view();
        self.sentinels.refresh_in_background();
        view.sentinels = self.sentinels.views();
        view.disk_free = rustix::fs::statvfs(&self.place.directory)
            .ok()
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if process::find(&self.place, binary).is_none() {
            view.process = self.stopped_state();
            return view;
        }
        let deadline = self.settings.deadlines.observe;
        let look = self.look_closely(&self.probe, deadline);
        // The order's connection is opened here, so that the first order finds it warm.
        let (looked, ()) = tokio::join!(look, self.control.warm(deadline));
        match looked {
            Ok((info, fence)) => {
                self.remember(&info);
                fill(&mut view, info, fence);
            }
            Err(error) => {
                view.process = match &error {
                    AskError::Silent { .. } => ProcessState::Silent,
                    // It says so itself: it is there.
                    AskError::Server { .. } => ProcessState::Running,
                    AskError::Unreachable { .. } | AskError::Broken { .. } => {
                        match process::find(&self.place, binary) {
                            Some(_) => ProcessState::Starting,
                            None => self.stopped_state(),
                        }
                    }
                };
                view.error = Some(error.to_string());
            }
        }
        view
    }

    fn stopped_state(&self) -> ProcessState {
        match self.files.look(&self.place) {
            OnDisk::Nothing => ProcessState::NoData,
            OnDisk::AppendOnly | OnDisk::Snapshot => ProcessState::Stopped,
        }
    }

    /// Keep the position, so that it can be told after a crash how far this node was.
    pub(crate) fn remember(&self, info: &ServerInfo) {
        self.memory().in_step.seen(info, Instant::now());
        let (Some(role), Some(position), false) = (info.role, info.position(), info.loading) else {
            return;
        };
        let seen = LastSeen { role, position };
        let mut memory = self.memory();
        if memory.last_seen.as_ref() == Some(&seen) {
            return;
        }
        let due = memory.written.is_none_or(|written| written.elapsed() >= WRITE_DOWN)
            || memory.last_seen.as_ref().is_none_or(|last| last.role != role);
        memory.last_seen = Some(seen.clone());
        if due {
            memory.written = Some(Instant::now());
            drop(memory);
            let place = self.place.clone();
            self.last_seen_file.later(move || seen.write(&place));
        }
    }

    /// The newest position known, from this run or an earlier one.
    pub(crate) fn last_seen(&self) -> Option<LastSeen> {
        self.memory().last_seen.clone().or_else(|| LastSeen::read(&self.place))
    }
}

fn fill(view: &mut RedisView, info: ServerInfo, fence: Option<u64>) {
    view.process = ProcessState::Running;
    view.loading = info.loading || info.syncing;
    view.role = info.role;
    view.link_up = info.role == Some(RedisRole::Replica) && info.link_up;
    view.master = info.master;
    view.replication = info.replication;
    view.offset = info.offset;
    view.second = info.second;
    view.keys = info.keys;
    view.min_replicas_to_write = fence;
    view.evicted_keys = info.evicted_keys;
    view.replicas = info.replicas;
    view.used_memory = info.used_memory;
    view.maxmemory = info.maxmemory;
    view.version = info.version;
    view.persistence = Some(RedisPersistence {
        append_only: info.append_only,
        append_ok: info.append_ok,
        snapshot_ok: info.bgsave_ok,
    });
}

fn empty_view() -> RedisView {
    RedisView {
        process: ProcessState::Stopped,
        role: None,
        replication: None,
        offset: None,
        second: None,
        master: None,
        link_up: false,
        loading: false,
        keys: 0,
        min_replicas_to_write: None,
        evicted_keys: 0,
        replicas: 0,
        used_memory: 0,
        maxmemory: 0,
        sentinels: std::collections::BTreeMap::new(),
        disk_free: None,
        version: None,
        persistence: None,
        error: None,
    }
}
