//! The full order of a commanded switch, as the orchestrator gives it, with the time of each part.

use std::time::{Duration, Instant};

use tier0_core::order::{Fact, Order};

use super::Lab;

/// How long the parts of a switch took.
#[derive(Debug, Default)]
pub struct Timings {
    pub vote: Duration,
    pub held: Duration,
    pub promote: Duration,
    pub demote: Duration,
    pub announce: Duration,
    pub total: Duration,
    pub method: String,
    pub epoch: u64,
}

impl Lab {
    /// The full order of a commanded switch.
    pub async fn switch(&self, from: usize, to: usize) -> Timings {
        let begun = Instant::now();
        let Fact::Voted { epoch, .. } = self.done(from, Order::RedisVote).await else { panic!() };
        let voted = Instant::now();
        let pause = Order::RedisPause { pause_ms: 1000 };
        let Fact::Offset { position } = self.done(from, pause).await else { panic!() };
        self.done(to, Order::RedisAwait { position: position.clone() }).await;
        let fence = self.done(from, Order::RedisFence).await;
        assert!(
            matches!(&fence, Fact::Offset { position: after } if *after == position),
            "{fence:?}"
        );
        let fenced = Instant::now();
        self.done(to, Order::RedisPromote { accept_loss: false }).await;
        let promoted = Instant::now();
        let followed = self.done(from, self.follow(to, 1)).await;
        let Fact::Followed { method, diverged_bytes: 0, kept_at: None } = followed else {
            panic!("{followed:?}")
        };
        let demoted = Instant::now();
        let announce = Order::RedisAnnounce { epoch: Some(epoch) };
        let Fact::Announced { agree, of, epoch } = self.done(to, announce).await else { panic!() };
        assert_eq!(agree, of);
        let end = Instant::now();
        Timings {
            vote: voted - begun,
            held: promoted - voted,
            promote: promoted - fenced,
            demote: demoted - promoted,
            announce: end - demoted,
            total: end - begun,
            method,
            epoch,
        }
    }
}
