//! One Redis node as its agent holds it: its connections, what it remembers, and which order is
//! carried out where. The orders themselves are in the files named after them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tier0_core::order::{Order, Outcome};
use tier0_core::words::{NodeId, RedisPosition};
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{Batch, Door};
use crate::disk::Files;
use crate::files::Latest;
use crate::in_step::InStep;
use crate::info::ServerInfo;
use crate::last_seen::LastSeen;
use crate::process;
use crate::reply::text;
use crate::sentinel::{Sentinels, SentinelsTold};
use crate::settings::{Place, RedisNodeSettings};
use crate::trouble::{Ran, Trouble, outcome};

/// How often [`RedisNode::wait_for_exit`] looks for a server while there is none.
const LOOK_FOR_SERVER: Duration = Duration::from_millis(100);

/// A Redis node.
pub struct RedisNode {
    pub(crate) settings: RedisNodeSettings,
    pub(crate) place: Place,
    pub(crate) files: Files,
    /// For orders alone.
    pub(crate) control: Door,
    /// For looks alone, so that a look never waits for an order.
    pub(crate) probe: Door,
    pub(crate) sentinels: Arc<Sentinels>,
    pub(crate) conf_file: Arc<Latest>,
    pub(crate) last_seen_file: Arc<Latest>,
    memory: Mutex<Memory>,
}

/// What the node's own answers cannot tell.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The pause that this adapter began and has not ended.
    pub paused: Option<Pause>,
    /// The newest position seen.
    pub last_seen: Option<LastSeen>,
    /// When it was last written down.
    pub written: Option<Instant>,
    /// When the data was last as new as the master's.
    pub in_step: InStep,
}

/// A running pause.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    /// Until here it is certain that the server holds writes.
    pub until: Instant,
    /// Where the stream stood when it began.
    pub position: RedisPosition,
}

/// What an order has to keep to.
pub(crate) struct Run<'a> {
    /// The end of its time.
    pub until: Instant,
    progress: &'a (dyn Fn(String) + Send + Sync),
}

impl Run<'_> {
    /// What is left of the time, at most `cap`.
    pub fn left(&self, cap: Duration) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min(cap)
    }

    /// Tell how far it is.
    pub fn tell(&self, sentence: impl Into<String>) {
        (self.progress)(sentence.into());
    }

    /// Wait a little, or say that there is no time left to.
    pub async fn pause(&self, wait: Duration, why: impl FnOnce() -> String) -> Result<(), Trouble> {
        if Instant::now() + wait >= self.until {
            return Err(Trouble::Unknown(why()));
        }
        sleep(wait).await;
        Ok(())
    }
}

impl RedisNode {
    /// A node. Nothing is opened or started; `settings.id` must be among `settings.nodes`, else
    /// `None`.
    pub fn new(settings: RedisNodeSettings) -> Option<Self> {
        let place = Place::of(settings.nodes.get(&settings.id)?);
        let password = Some(settings.password.clone());
        let sentinels = Sentinels::new(&settings);
        Some(RedisNode {
            files: Files::of(&settings.redis.parameters),
            control: Door::new(place.address, password.clone()),
            probe: Door::new(place.address, password),
            sentinels: Arc::new(sentinels),
            conf_file: Arc::default(),
            last_seen_file: Arc::default(),
            memory: Mutex::new(Memory::default()),
            place,
            settings,
        })
    }

    /// The node's name.
    pub fn id(&self) -> &NodeId {
        &self.settings.id
    }

    /// Carry out an order within `limit`. Orders of other kinds of datastores are refused
    /// (`not-a-redis-order`). Safe to repeat, also after this future was dropped half-way.
    ///
    /// `progress` is given a sentence whenever the order comes further; it must not block.
    pub async fn perform(
        &self,
        order: &Order,
        limit: Duration,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Outcome {
        let last = Mutex::new(String::new());
        let remember = |sentence: String| {
            last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&sentence);
            progress(sentence);
        };
        let end = Instant::now() + limit;
        // A little earlier than the limit, so that what ran out of time can say with which numbers.
        let until = end.checked_sub((limit / 20).min(Duration::from_millis(20))).unwrap_or(end);
        let run = Run { until, progress: &remember };
        match timeout_at(end, self.run(order, &run)).await {
            Ok(ran) => outcome(ran),
            Err(_) => {
                let last = last.lock().unwrap_or_else(PoisonError::into_inner);
                let reached = if last.is_empty() { "no progress was made" } else { last.as_str() };
                Outcome::Unknown {
                    why: format!("not finished within {} ms: {reached}", limit.as_millis()),
                }
            }
        }
    }

    async fn run(&self, order: &Order, run: &Run<'_>) -> Ran {
        match order {
            Order::RedisVote => self.vote(run).await,
            Order::RedisPause { pause_ms } => self.pause(run, *pause_ms).await,
            Order::RedisAskMaster { master } => self.ask_master(run, master).await,
            Order::RedisAwait { position } => self.await_position(run, position).await,
            Order::RedisFence => self.fence(run).await,
            Order::RedisUnfence { min_replicas_to_write } => {
                self.unfence(run, *min_replicas_to_write).await
            }
            Order::RedisPromote { accept_loss } => self.promote(run, (*accept_loss).into()).await,
            Order::RedisFollow { upstream, min_replicas_to_write, rebuild } => {
                self.follow(run, upstream, *min_replicas_to_write, (*rebuild).into()).await
            }
            Order::RedisStart { first } => self.start(run, (*first).into()).await,
            Order::RedisAnnounce { epoch } => self.announce(run, *epoch).await,
            Order::RedisSentinelFailover => self.sentinel_failover(run).await,
            Order::RedisValidate { token } => self.validate(run, token).await,
            Order::PostgresCheckpoint
            | Order::PostgresDrain
            | Order::PostgresAwait { .. }
            | Order::PostgresStop
            | Order::PostgresStart { .. }
            | Order::PostgresAdmit { .. }
            | Order::PostgresPromote { .. }
            | Order::PostgresValidate { .. }
            | Order::PostgresFollow { .. }
            | Order::PostgresJoinBegin { .. }
            | Order::PostgresRename { .. }
            | Order::PostgresJoinProve { .. }
            | Order::PostgresLeave
            | Order::Route { .. } => Err(Trouble::refused(
                "not-a-redis-order",
                format!("{} is a Redis node", self.settings.id),
            )),
        }
    }

    /// Comes back when the running server has ended. While there is none it waits for one first.
    pub async fn wait_for_exit(&self) {
        let pid = loop {
            match process::find(&self.place, &self.settings.redis.server_binary) {
                Some(pid) => break pid,
                None => sleep(LOOK_FOR_SERVER).await,
            }
        };
        process::ended(pid, &self.place, &self.settings.redis.server_binary).await;
    }

    /// Raise the quorum on every Sentinel that can be reached, so that Sentinels serve discovery
    /// and never move the datastore by themselves (D2). Safe to call at any time and rate; asks
    /// only Sentinels whose last known quorum is another.
    pub async fn take_authority(&self) -> SentinelsTold {
        self.sentinels.take_authority().await
    }

    /// Tell Sentinels that name another master than `master` that it is `master`, with an epoch
    /// above all that are known (D2). For Sentinels that were away during a switch.
    ///
    /// To be called for the writer's own node, about every second, and only while the record that
    /// says so is fresh: a node that has not heard of its successor would turn Sentinels back. As
    /// a second guard nothing is told unless this node is that master, not fenced and not paused.
    pub async fn repair_sentinels(&self, master: &NodeId) -> SentinelsTold {
        let of = self.sentinels.count();
        let may_speak = *master == self.settings.id && self.accepts_writes().await;
        let Some(address) = self.address_of(master).filter(|_| may_speak) else {
            return SentinelsTold { told: 0, already: 0, of };
        };
        self.sentinels.repair(address).await
    }

    async fn accepts_writes(&self) -> bool {
        if self.memory().paused.as_ref().is_some_and(|pause| pause.until > Instant::now()) {
            return false;
        }
        match self.look_closely(&self.probe, self.settings.deadlines.observe).await {
            Ok((info, fence)) => {
                info.role == Some(tier0_core::observe::RedisRole::Master)
                    && fence.is_some_and(|value| value < crate::FENCED)
            }
            Err(_) => false,
        }
    }

    /// `INFO` and `min-replicas-to-write` in one round trip.
    pub(crate) async fn look_closely(
        &self,
        door: &Door,
        within: Duration,
    ) -> Result<(ServerInfo, Option<u64>), crate::connection::AskError> {
        let batch = Batch::new().tell(["INFO"]).tell(["CONFIG", "GET", "min-replicas-to-write"]);
        let replies = door.ask(batch, within).await?;
        let info = replies.first().and_then(text).unwrap_or_default();
        let fence = replies
            .get(1)
            .map(crate::reply::fields)
            .and_then(|fields| fields.get("min-replicas-to-write")?.parse().ok());
        Ok((ServerInfo::parse(&info), fence))
    }

    /// The address of a node as the others see it.
    pub(crate) fn address_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.settings.nodes.get(node).map(|node| node.address)
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        // What is in there is replaced as a whole, so a panic elsewhere cannot have left it torn.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
