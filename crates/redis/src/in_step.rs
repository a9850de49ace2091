//! When this node's data was last as new as the master's. A replica that was started again and has not
//! been linked since cannot say it (`INFO` has no `master_link_down_since_seconds` then), and would not
//! be promoted however fresh it is; its agent, which has watched it all the time, can.
//!
//! It is kept in the agent's memory alone: an agent that began anew does not know, and says so.

use std::time::Duration;

use tier0_core::observe::RedisRole;
use tokio::time::Instant;

use crate::disk::OnDisk;
use crate::info::ServerInfo;

/// What was seen, and of which run of the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct InStep {
    /// The run that was looked at last.
    run: Option<String>,
    /// When it was last in step, with all of that on its disk but for the last second.
    at: Option<Instant>,
    /// The next run begins with what this one left on the disk.
    carries: bool,
}

impl InStep {
    /// The server was looked at.
    pub fn seen(&mut self, info: &ServerInfo, now: Instant) {
        if info.run.is_none() || info.loading {
            return;
        }
        if self.run != info.run {
            // A run that this agent did not start may have begun over anything.
            if !std::mem::take(&mut self.carries) {
                self.at = None;
            }
            self.run.clone_from(&info.run);
        }
        let newest = match info.role {
            Some(RedisRole::Master) => true,
            Some(RedisRole::Replica) => info.link_up && !info.syncing,
            None => false,
        };
        // After a full synchronisation the file on the disk is the one from before it, until it has
        // been rewritten (replication.c, restartAOFAfterSYNC).
        if newest && info.append_only && info.append_ok && !info.aof_rewriting {
            self.at = Some(now);
        }
    }

    /// The agent is about to start the server over this.
    pub fn starts_again(&mut self, on_disk: OnDisk) {
        self.carries = on_disk == OnDisk::AppendOnly;
    }

    /// How long ago it was, for the run that is looked at; `None` where nobody knows.
    pub fn ago(&self, info: &ServerInfo, now: Instant) -> Option<Duration> {
        let known = self.run == info.run && self.run.is_some();
        self.at.filter(|_| known).map(|at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(run: &str, role: RedisRole) -> ServerInfo {
        ServerInfo {
            run: Some(run.to_owned()),
            role: Some(role),
            link_up: false,
            append_only: true,
            append_ok: true,
            ..ServerInfo::default()
        }
    }

    fn linked(run: &str) -> ServerInfo {
        ServerInfo { link_up: true, ..looks(run, RedisRole::Replica) }
    }

    #[test]
    fn it_outlives_a_start_over_the_same_file_and_nothing_else() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(3);
        let unlinked = looks("b", RedisRole::Replica);
        for (on_disk, ago) in [
            (Some(OnDisk::AppendOnly), Some(Duration::from_secs(3))),
            (Some(OnDisk::Snapshot), None),
            (Some(OnDisk::Nothing), None),
            // Somebody else started it.
            (None, None),
        ] {
            let mut in_step = InStep::default();
            in_step.seen(&linked("a"), begun);
            if let Some(on_disk) = on_disk {
                in_step.starts_again(on_disk);
            }
            in_step.seen(&unlinked, later);
            assert_eq!(in_step.ago(&unlinked, later), ago, "{on_disk:?}");
            // A second start over the same is no better known than the first.
            in_step.seen(&looks("c", RedisRole::Replica), later);
            assert_eq!(in_step.ago(&looks("c", RedisRole::Replica), later), None);
        }
    }

    #[test]
    fn a_file_that_is_being_rewritten_or_fails_is_not_counted_on() {
        let now = Instant::now();
        for info in [
            ServerInfo { aof_rewriting: true, ..linked("a") },
            ServerInfo { append_ok: false, ..linked("a") },
            ServerInfo { append_only: false, ..linked("a") },
            ServerInfo { syncing: true, ..linked("a") },
            ServerInfo { loading: true, ..linked("a") },
            looks("a", RedisRole::Replica),
        ] {
            let mut in_step = InStep::default();
            in_step.seen(&info, now);
            assert_eq!(in_step.ago(&info, now), None, "{info:?}");
        }
        let mut in_step = InStep::default();
        in_step.seen(&looks("a", RedisRole::Master), now);
        let replica = looks("a", RedisRole::Replica);
        assert_eq!(in_step.ago(&replica, now), Some(Duration::ZERO), "a master that was demoted");
    }
}
