//! `RedisSentinelFailover`: the documented way, `SENTINEL FAILOVER`, for mode `documented`. Pause,
//! equal offsets and the fence on the old master come before it, else it loses writes. About a
//! second, since Sentinel sees a promotion only in its next INFO.

use std::time::Duration;

use tier0_core::observe::RedisRole;
use tier0_core::order::Fact;

use super::round::Patience;
use crate::connection::Batch;
use crate::node::{RedisNode, Run};
use crate::reply::first_error;
use crate::switch::{PauseThen, known_position};
use crate::trouble::{Ran, Trouble};

/// How often the Sentinels and the server are looked at.
const LOOK: Duration = Duration::from_millis(10);

impl RedisNode {
    /// Goes to the node that is to become master. The new master gets `min-replicas-to-write 0`.
    pub(crate) async fn sentinel_failover(&self, run: &Run<'_>) -> Ran {
        let me = self.place.address;
        let sentinels = &self.sentinels;
        let (states, missing) = sentinels.gather(Patience::Majority).await;
        let Some((speaker, state)) = states.first() else {
            return Err(Trouble::failed(format!(
                "none of {} Sentinels can be reached: {}",
                sentinels.count(),
                missing.join("; ")
            )));
        };
        if !state.names(me) && !state.is_failing_over() {
            let batch = Batch::new().tell(["SENTINEL", "FAILOVER", &sentinels.name]);
            let replies = speaker.door.ask_plainly(batch, sentinels.deadlines.sentinel).await?;
            // INPROG: somebody was faster, and its result is what is waited for.
            if let Some(why) = first_error(&replies).filter(|why| !why.starts_with("INPROG")) {
                return Err(Trouble::failed(format!("{} answers: {why}", speaker.address)));
            }
        }
        let mut opened = false;
        loop {
            let (info, fence) =
                self.look_closely(&self.control, run.left(self.settings.deadlines.answer)).await?;
            let master = info.role == Some(RedisRole::Master);
            if master && !opened && fence != Some(0) {
                self.set_fence(run, 0, PauseThen::Ends).await?;
            }
            opened |= master;
            let named =
                speaker.look(&sentinels.name, sentinels.deadlines.sentinel).await?.names(me);
            if master && named {
                self.remember(&info);
                self.store_role(None);
                return Ok(Fact::RedisPromoted { position: known_position(&info)? });
            }
            let why = if master {
                "promoted; the Sentinels do not name it yet"
            } else {
                "Sentinel has not promoted it yet"
            };
            run.tell(why);
            run.pause(LOOK, || why.to_owned()).await?;
        }
    }
}
