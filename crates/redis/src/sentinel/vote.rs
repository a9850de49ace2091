//! Winning a Sentinel epoch by a majority of votes.
//!
//! `SENTINEL IS-MASTER-DOWN-BY-ADDR ip port epoch id` gives one vote per epoch to whoever asks
//! first; neither that the candidate is a Sentinel nor that the master is down is checked
//! (sentinel.c, sentinelVoteLeader). Whoever has a majority owns the epoch: no Sentinel can win it
//! for a failover of its own. And a Sentinel that voted stays still for twice its failover-timeout
//! (it sets failover_start_time), so the vote is a lock as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tier0_core::order::Fact;
use tokio::time::Instant;

use super::round::{Patience, round};
use super::state::SentinelState;
use super::{Sentinel, Sentinels};
use crate::connection::{AskError, Batch};
use crate::node::{RedisNode, Run};
use crate::reply::{number, parts, text};
use crate::trouble::{Ran, Trouble};

/// How often a higher epoch is tried. Each try at least doubles the step, so this many reach any
/// epoch within a million of the highest that `SENTINEL MASTER` shows.
const ROUNDS: u32 = 20;

/// One Sentinel's vote.
struct Vote {
    ours: bool,
    epoch: u64,
    after: Option<SentinelState>,
    from: Arc<Sentinel>,
}

/// A candidate's id as Sentinels use them: 40 hexadecimal digits, another one each time.
fn candidate() -> Result<String, Trouble> {
    let mut bytes = [0u8; 20];
    getrandom::fill(&mut bytes)
        .map_err(|error| Trouble::failed(format!("no random candidate id: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl RedisNode {
    /// `RedisVote`.
    pub(crate) async fn vote(&self, run: &Run<'_>) -> Ran {
        self.sentinels.vote(run.until).await
    }
}

impl Sentinels {
    /// Fresh states of those that answer, and why the others are missing.
    pub(crate) async fn gather(
        &self,
        patience: Patience,
    ) -> (Vec<(Arc<Sentinel>, SentinelState)>, Vec<String>) {
        let within = self.deadlines.sentinel;
        let asked = self.all.iter().map(|one| {
            let question = async {
                let said = one.look(&self.name, within).await;
                (Arc::clone(one), said)
            };
            (one.standing(), question)
        });
        let answers =
            round(asked, self.majority(), within, patience, |(_, said)| said.is_ok()).await;
        let mut states = Vec::new();
        let mut missing: Vec<String> = self
            .all
            .iter()
            .filter(|one| answers.iter().all(|(answered, _)| !Arc::ptr_eq(one, answered)))
            .map(|one| format!("{} has not answered in time", one.address))
            .collect();
        for (one, said) in answers {
            match said {
                Ok(state) => states.push((one, state)),
                Err(error) => missing.push(error.to_string()),
            }
        }
        (states, missing)
    }

    async fn vote(&self, until: Instant) -> Ran {
        let (of, needed) = (self.count(), self.majority());
        let (states, missing) = self.gather(Patience::Majority).await;
        if states.len() < needed || of == 0 {
            return Err(Trouble::failed(format!(
                "{} of {of} Sentinels answer and a vote needs {needed}: {}",
                states.len(),
                missing.join("; ")
            )));
        }
        let me = candidate()?;
        let highest = states.iter().map(|(_, state)| state.config_epoch).max().unwrap_or(0);
        let mut epoch = highest.max(self.used_epoch.load(Ordering::Relaxed)).saturating_add(1);
        let mut won = 0;
        for attempt in 0..ROUNDS {
            if Instant::now() >= until {
                break;
            }
            let votes = self.ask_for_votes(&states, epoch, &me).await;
            won = votes.iter().filter(|vote| vote.ours && vote.epoch == epoch).count();
            if let Some(busy) = votes
                .iter()
                .find(|vote| vote.after.as_ref().is_some_and(SentinelState::is_failing_over))
            {
                return Err(Trouble::failed(format!(
                    "the Sentinel {} is in a failover of its own",
                    busy.from.address
                )));
            }
            if won >= needed {
                let votes = u32::try_from(won).unwrap_or(u32::MAX);
                return Ok(Fact::Voted { epoch, votes, of });
            }
            // A refused vote comes with the epoch of the vote that was given, which may still be
            // below the Sentinel's own current epoch: hence the growing step.
            let seen = votes.iter().map(|vote| vote.epoch).max().unwrap_or(0);
            epoch = epoch.saturating_add(2u64.pow(attempt)).max(seen.saturating_add(1));
        }
        Err(Trouble::failed(format!(
            "{won} of {of} Sentinels voted in the last epoch tried, {epoch}; {needed} are needed"
        )))
    }

    async fn ask_for_votes(
        &self,
        states: &[(Arc<Sentinel>, SentinelState)],
        epoch: u64,
        me: &str,
    ) -> Vec<Vote> {
        self.used_epoch.fetch_max(epoch, Ordering::Relaxed);
        let within = self.deadlines.sentinel;
        let asked = states
            .iter()
            .map(|(one, state)| (one.standing(), self.ask_for_vote(one, state, epoch, me, within)));
        let answers =
            round(asked, self.majority(), within, Patience::Majority, Result::is_ok).await;
        answers.into_iter().filter_map(Result::ok).collect()
    }

    async fn ask_for_vote(
        &self,
        one: &Arc<Sentinel>,
        state: &SentinelState,
        epoch: u64,
        me: &str,
        within: Duration,
    ) -> Result<Vote, AskError> {
        let (port, number_of) = (state.port.to_string(), epoch.to_string());
        // The master's address as this Sentinel has it: another would find no master to vote for.
        let batch = Batch::new()
            .tell(["SENTINEL", "IS-MASTER-DOWN-BY-ADDR", &state.ip, &port, &number_of, me])
            .tell(["SENTINEL", "MASTER", &self.name]);
        let replies = one.door.ask(batch, within).await?;
        // down state, leader, leader epoch
        let vote = replies.first().map(parts).unwrap_or_default();
        Ok(Vote {
            ours: vote.get(1).and_then(text).as_deref() == Some(me),
            epoch: vote.get(2).and_then(number).unwrap_or(0),
            after: replies.get(1).and_then(SentinelState::read_master),
            from: Arc::clone(one),
        })
    }

    /// One more vote, now about the new master. After a change of address Sentinel forgets when it
    /// last began a failover but keeps what its peers said of the old master, so it may find the
    /// new one down at once and fail back (sentinel.c, sentinelResetMaster); having voted it stays
    /// still. Nothing depends on the result.
    pub(crate) async fn relock(&self, states: &[(Arc<Sentinel>, SentinelState)], epoch: u64) {
        if let Ok(me) = candidate() {
            let votes = self.ask_for_votes(states, epoch, &me).await;
            let ours = votes.iter().filter(|vote| vote.ours).count();
            tracing::debug!(ours, epoch, "votes about the new master");
        }
    }
}
