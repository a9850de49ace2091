//! One PostgreSQL node: what the agent holds. Gives each order to the file that knows it.
//!
//! Leaves out stamps and their order: the agent has checked them before it calls.

use std::sync::Arc;
use std::time::Duration;

use tier0_config::Secret;
use tier0_core::observe::PostgresView;
use tier0_core::order::{Order, Outcome};
use tier0_core::words::NodeId;
use tokio::sync::{Mutex, OnceCell};

use crate::commit_probe::Probes;
use crate::control::ControlReader;
use crate::deadline::Deadline;
use crate::initialise::InitialiseError;
use crate::join::JoinSlot;
use crate::process::Postmaster;
use crate::session::Kept;
use crate::settings::{Checked, PostgresNodeSettings, SettingsError};
use crate::trouble::{Attempt, Trouble};

/// How often a server that is not there is looked for.
const LOOK_FOR_SERVER: Duration = Duration::from_millis(50);

/// How much longer than its limit an order may take before it is dropped: a stop goes on to harder
/// means after its limit, an undo must be finished.
const GRACE: Duration = Duration::from_secs(10);

/// How an order tells how far it is.
pub(crate) type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

/// What all files of this crate work on.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) node: Checked,
    pub(crate) control: ControlReader,
    /// The session of [`PostgresNode::observe`].
    pub(crate) looking: Kept,
    /// The session of orders, kept apart so that a look never waits for an order.
    pub(crate) ordering: Kept,
    pub(crate) join: JoinSlot,
    /// The name of the system user that this process and the server run as.
    pub(crate) system_user: OnceCell<String>,
    /// Whether a join that an earlier agent left unproven was looked for.
    abandoned: OnceCell<()>,
    /// The server that was killed last, until somebody needs it gone.
    pub(crate) killed: Mutex<Option<Postmaster>>,
    /// Held while the file with the rule is written: a join's timer writes it too.
    pub(crate) role_file: Mutex<()>,
    /// Whether commits come back.
    pub(crate) probes: Probes,
    /// One order at a time.
    order: Mutex<()>,
}

/// One PostgreSQL node. Cheap to clone; clones are the same node.
///
/// Must be used by the user that the server runs as, inside a Tokio runtime. Of all handles in all
/// processes only one may give orders at a time: the agent's lock on its state sees to that.
#[derive(Debug, Clone)]
pub struct PostgresNode {
    server: Arc<Server>,
}

impl PostgresNode {
    /// A node. Touches neither files nor the server.
    ///
    /// # Errors
    /// Settings that cannot work, for instance a name that PostgreSQL would cut.
    pub fn new(settings: PostgresNodeSettings) -> Result<Self, SettingsError> {
        let node = Checked::new(settings)?;
        Ok(PostgresNode {
            server: Arc::new(Server {
                node,
                control: ControlReader::default(),
                looking: Kept::default(),
                ordering: Kept::default(),
                join: JoinSlot::default(),
                system_user: OnceCell::new(),
                abandoned: OnceCell::new(),
                killed: Mutex::default(),
                role_file: Mutex::new(()),
                probes: Probes::default(),
                order: Mutex::new(()),
            }),
        })
    }

    /// One look at the node, over a kept session by the Unix socket. Takes at most the probe limit
    /// of the settings (plus file system accesses); what could not be seen is absent, and `error`
    /// says why.
    ///
    /// The first look also undoes a join that an earlier agent left unproven (P1).
    pub async fn observe(&self) -> PostgresView {
        if let Err(trouble) = self.server.settle_abandoned_join().await {
            tracing::warn!(node = %self.server.node.settings.node, %trouble, "abandoned join");
        }
        self.server.look().await
    }

    /// Do what an order says. One order at a time: a second one waits for the first within its own
    /// limit. Safe to repeat; a goal that is met already is answered as done. Dropping the future
    /// ends child processes it started, never the server.
    ///
    /// `limit` is how long the order may take; what is not settled by then is `Unknown`.
    /// [`Order::PostgresStop`] may take up to 10 s longer, since its limit is that of the gentle
    /// way. `progress` is called with sentences for people while a long order runs.
    pub async fn perform(
        &self,
        order: &Order,
        limit: Duration,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Outcome {
        let deadline = Deadline::after(limit);
        let Ok(_turn) = tokio::time::timeout(limit, self.server.order.lock()).await else {
            return Outcome::Failed { why: "another order is still being performed".to_owned() };
        };
        if let Err(trouble) = self.server.settle_abandoned_join().await {
            return trouble.into();
        }
        let performing = self.server.clone().obey(order, deadline, progress);
        match tokio::time::timeout(deadline.left() + GRACE, performing).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(trouble)) => trouble.into(),
            Err(_) => Outcome::Unknown { why: "it did not end within its limit".to_owned() },
        }
    }

    /// See for ever whether commits come back; [`PostgresNode::observe`] says what came of it.
    pub async fn keep_probing(&self) {
        self.server.keep_probing().await;
    }

    /// Let no byte out of the server, nor in, until it is released.
    ///
    /// # Errors
    /// A process may not be signalled.
    pub fn hold(&self) -> std::io::Result<()> {
        self.server.hold()
    }

    /// Let the held server go on.
    ///
    /// # Errors
    /// A process may not be signalled.
    pub fn release(&self) -> std::io::Result<()> {
        self.server.release()
    }

    /// End the held server without letting it go on.
    ///
    /// # Errors
    /// A process may not be signalled.
    pub fn end_held(&self) -> std::io::Result<()> {
        self.server.end_held()
    }

    /// Whether an earlier agent was killed while it ended the primary, and left it, most likely stopped.
    /// [`PostgresNode::forget_ending`] once somebody holds it.
    ///
    /// # Errors
    /// What lies beside the data cannot be read.
    pub fn is_left_ending(&self) -> std::io::Result<bool> {
        self.server.is_left_ending()
    }

    /// It is held by somebody, or nothing was left.
    ///
    /// # Errors
    /// What lies beside the data cannot be removed.
    pub fn forget_ending(&self) -> std::io::Result<()> {
        self.server.forget_ending()
    }

    /// Returns at once when the server that runs now has ended, by whatever cause. While none
    /// runs, waits for one.
    pub async fn wait_for_exit(&self) {
        loop {
            if let Ok(Some(postmaster)) = Postmaster::find(&self.server.node.paths.data) {
                match postmaster.ended().await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "cannot wait for the server's end"),
                }
            }
            tokio::time::sleep(LOOK_FOR_SERVER).await;
        }
    }

    /// What [`PostgresNode::adopt`] would write for a server that follows `upstream`, or is
    /// primary.
    ///
    /// # Errors
    /// A sentence: the upstream is no other node.
    pub async fn adoption_lines(
        &self,
        upstream: Option<&NodeId>,
    ) -> Result<crate::AdoptionLines, String> {
        self.server.adoption_lines(upstream, "").await.map_err(|trouble| trouble.to_string())
    }

    /// Take over the server that runs here and was made by somebody else, while it serves. Needs
    /// the admin role; a standby also needs the replication role and its slot on the upstream.
    ///
    /// # Errors
    /// A sentence. What was done until then stays, and the next call goes on from there.
    pub async fn adopt(
        &self,
        upstream: Option<&NodeId>,
        limit: Duration,
    ) -> Result<crate::Adopted, String> {
        let _turn = self.server.order.lock().await;
        let adopted = self.server.adopt(upstream, Deadline::after(limit)).await;
        adopted.map_err(|trouble| trouble.to_string())
    }

    /// Make the very first data directory of the datastore: cluster, roles, the application's
    /// database and tables, tier0's own schema. Leaves the server stopped, clients kept out.
    ///
    /// # Errors
    /// A data directory that holds data already is refused; one that an earlier call left half
    /// made is begun anew.
    pub async fn initialise(&self, application_password: &Secret) -> Result<(), InitialiseError> {
        let _turn = self.server.order.lock().await;
        self.server.initialise(application_password).await
    }
}

impl Server {
    /// The deadline's rest, for one statement.
    pub(crate) async fn session(
        &self,
        deadline: Deadline,
    ) -> Attempt<Arc<crate::session::Session>> {
        Ok(self.ordering.get(&self.node, deadline.left()).await?)
    }

    /// The running server.
    pub(crate) fn running(&self) -> Attempt<Option<Postmaster>> {
        Postmaster::find(&self.node.paths.data).map_err(Trouble::io("look for the server"))
    }

    /// Have the running server read its configuration again.
    pub(crate) fn reload(&self) -> Attempt<()> {
        match self.running()? {
            Some(postmaster) => postmaster.reload().map_err(Trouble::io("reload")),
            None => Err(Trouble::failed("the server is not running")),
        }
    }

    /// A pause between two looks at something that is waited for.
    pub(crate) async fn pause(&self) {
        tokio::time::sleep(self.node.settings.poll_interval).await;
    }

    async fn settle_abandoned_join(self: &Arc<Self>) -> Attempt<()> {
        self.abandoned.get_or_try_init(|| self.undo_abandoned_join()).await.copied()
    }

    async fn obey(
        self: Arc<Self>,
        order: &Order,
        deadline: Deadline,
        progress: Progress<'_>,
    ) -> Attempt<Outcome> {
        let fact = match order {
            Order::PostgresCheckpoint => self.checkpoint(deadline).await?,
            Order::PostgresDrain => self.drain(deadline).await?,
            Order::PostgresAwait { position } => self.await_wal(position, deadline).await?,
            Order::PostgresStop => self.stop_proven(deadline).await?,
            Order::PostgresStart { names } => self.start(names.as_ref(), deadline).await?,
            Order::PostgresAdmit { member } => self.admit(member.as_ref(), deadline).await?,
            Order::PostgresPromote { member, stopped_at, accept_loss, names } => {
                let proof = crate::promote::Proof::of(member.as_ref(), *accept_loss)?;
                self.promote(proof, stopped_at.as_ref(), names.as_ref(), deadline).await?
            }
            Order::PostgresValidate { token } => self.validate(token, deadline).await?,
            Order::PostgresFollow { upstream, rebuild, keep_old } => {
                let wish = crate::follow::Wish::of(*rebuild, *keep_old);
                self.follow(upstream, wish, deadline, progress).await?
            }
            Order::PostgresJoinBegin { name, join_limit_ms } => {
                let join_limit = Duration::from_millis(*join_limit_ms);
                self.join_begin(name, join_limit, deadline).await?
            }
            Order::PostgresRename { name } => self.rename(name, deadline).await?,
            Order::PostgresJoinProve { name } => self.join_prove(name, deadline).await?,
            Order::PostgresLeave => self.leave(deadline).await?,
            Order::RedisVote
            | Order::RedisPause { .. }
            | Order::RedisAskMaster { .. }
            | Order::RedisAwait { .. }
            | Order::RedisFence
            | Order::RedisUnfence { .. }
            | Order::RedisPromote { .. }
            | Order::RedisFollow { .. }
            | Order::RedisStart { .. }
            | Order::RedisAnnounce { .. }
            | Order::RedisSentinelFailover
            | Order::RedisValidate { .. }
            | Order::Route { .. } => {
                return Err(Trouble::refused("wrong-kind", "this node is PostgreSQL"));
            }
        };
        Ok(Outcome::Done { fact })
    }
}
