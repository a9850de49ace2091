//! How servers look from elsewhere: knocks of the orchestrators and of the other region's agent. Some
//! of what is told is not so: the detector is never trusted.

use tier0_core::observe::{Knock, ProcessState, Reach};

use super::*;

impl Chaos {
    /// Every 200 ms each orchestrator knocks at every server.
    pub(super) fn knock(&mut self) {
        let ids: Vec<NodeId> = self.servers.keys().cloned().collect();
        for run in self.cores.keys().copied().collect::<Vec<_>>() {
            if self.is_still(run) {
                continue;
            }
            for node in &ids {
                let linked = self.way(run, node.region()).there;
                let knock = self.knock_at(node, linked);
                let input = Input::Knocked { node: node.clone(), knock };
                self.step(run, input);
            }
        }
    }

    fn knock_at(&mut self, node: &NodeId, linked: bool) -> Knock {
        if self.wild && self.random.once_in(self.parameters.lies_once_in) {
            self.lying_until = self.now + self.random.between(100, 3_000) * MS;
        }
        let process = self.servers[node].shown();
        if !linked || process == ProcessState::Silent || self.now < self.lying_until {
            Knock::Silent
        } else if process == ProcessState::Running {
            Knock::Answered
        } else {
            Knock::Refused
        }
    }

    /// What the agent of a region tells of the other region's servers.
    pub(super) fn peers(&mut self, place: &Region) -> BTreeMap<NodeId, Reach> {
        let ids: Vec<NodeId> =
            self.servers.keys().filter(|id| id.region() != place).cloned().collect();
        let mut peers = BTreeMap::new();
        for node in ids {
            let newest = self.knock_at(&node, self.stream_up);
            let answered = self.answered_at.entry(node.clone()).or_insert(self.now);
            if newest == Knock::Answered {
                *answered = self.now;
            }
            let unanswered_ms = (self.now - *answered) / MS;
            peers.insert(node, Reach { newest, unanswered_ms });
        }
        peers
    }

    /// Nobody moves the writer without being asked, unless that is armed (O3).
    pub(super) fn check_automatic(&self, run: u64, activity: &Activity) {
        // One that acts no more and does not know it yet decides by what was set before.
        let acts = !self.is_shared() || self.acting_run() == run;
        if activity.cause.is_none() || !acts {
            return;
        }
        let mode = self.authority().automatic.mode;
        assert_eq!(mode, AutomaticMode::Armed, "{} moves the writer", activity.by);
    }
}
