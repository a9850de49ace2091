//! Entering and leaving the takeover set, on the primary's side (P1, P2).
//!
//! Join: the standby streams under its new name already. The primary begins to wait for a name that
//! nobody has, and a canary is seen waiting; then the rule becomes the new name, and the standby's
//! flush sends the canary back: see [`crate::admit`] for why the one proves the other. Clients wait
//! for two reloads and a round trip. Until that is proven, a timer here takes the rule back by
//! itself. A file beside the data directory says that a join is not proven: it is there before the
//! rule is, and is gone before the proof is reported, so an agent that starts anew and finds it knows
//! that nobody was told of a proof.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tier0_core::order::Fact;
use tier0_core::words::{Lsn, SyncName};

use crate::admit::proof_name;
use crate::base_directory::BaseDirectory;
use crate::canary::Canary;
use crate::conf::{self, RoleConf};
use crate::deadline::Deadline;
use crate::durable;
use crate::marker::{self, Joining};
use crate::node::Server;
use crate::settings::LONGEST_NAME;
use crate::trouble::{Attempt, Trouble};

/// How far the newest join is. Whoever moves it on from `Pending` decides its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rule is, or is about to be, in force.
    Pending,
    /// Proven: only a command takes it back.
    Proven,
    /// Taken back.
    Undone,
}

#[derive(Debug)]
struct Join {
    name: SyncName,
    phase: Phase,
    /// The rule that it is taken back to.
    before: String,
    /// The canary that was seen waiting, and a position that it is not beyond.
    seen: Option<(Arc<Canary>, Lsn)>,
}

/// The newest join of this primary.
#[derive(Debug, Default)]
pub(crate) struct JoinSlot(Mutex<Option<Join>>);

impl JoinSlot {
    fn lock(&self) -> MutexGuard<'_, Option<Join>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forget the newest join, because another order now says what the rule is.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    fn is(&self, name: &SyncName, phase: Phase) -> bool {
        matches!(&*self.lock(), Some(join) if join.name == *name && join.phase == phase)
    }

    /// The rule before the join of this name, if that is the newest and was taken back.
    fn undone(&self, name: &SyncName) -> Option<String> {
        match &*self.lock() {
            Some(join) if join.name == *name && join.phase == Phase::Undone => {
                Some(join.before.clone())
            }
            Some(_) | None => None,
        }
    }

    /// Move the pending join of this name on. Whether it was pending.
    fn settle(&self, name: &SyncName, phase: Phase) -> bool {
        match &mut *self.lock() {
            Some(join) if join.name == *name && join.phase == Phase::Pending => {
                join.phase = phase;
                true
            }
            Some(_) | None => false,
        }
    }
}

/// PostgreSQL cuts an `application_name` that is too long, and then it matches no rule.
pub(crate) fn check_length(name: &SyncName) -> Attempt<()> {
    let length = name.to_string().len();
    if length <= LONGEST_NAME {
        return Ok(());
    }
    Err(Trouble::refused(
        "name-too-long",
        format!("{name} is {length} bytes long; PostgreSQL cuts names at {LONGEST_NAME}"),
    ))
}

impl Server {
    /// Begin to wait for `name`. Done when a canary was seen waiting for a name that nobody has, and
    /// the rule has become `name`.
    pub(crate) async fn join_begin(
        self: &Arc<Self>,
        name: &SyncName,
        join_limit: Duration,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        check_length(name)?;
        let session = self.session(deadline).await?;
        self.primary(&session, deadline).await?;
        if let Some(lsn) = self.already_waiting(name) {
            return Ok(Fact::Waiting { lsn });
        }
        let in_force = self.names_in_force(deadline).await?;
        if in_force == conf::rule(name) {
            return self.already_in_force(name, deadline).await;
        }
        let nobody = SyncName::nobody(name.node().clone());
        if !in_force.is_empty() && in_force != conf::rule(&nobody) {
            return Err(Trouble::refused(
                "names-in-force",
                format!("commits wait for '{in_force}' already; that member must leave first"),
            ));
        }
        // Everything that takes time comes before clients wait.
        let aviary = self.aviary(deadline).await?;
        let before = in_force;
        let joining = Joining { name: name.clone(), before: before.clone() };
        marker::write(&self.node.paths.joining, &joining)
            .await
            .map_err(|error| Trouble::failed(error.to_string()))?;
        *self.join.lock() =
            Some(Join { name: name.clone(), phase: Phase::Pending, before, seen: None });
        // The timer runs before the rule can be in force, and outlives this order.
        self.undo_after(name.clone(), join_limit);
        self.rule_of_join(name, &conf::rule_for(&proof_name(name))).await?;
        let within = deadline.at_most(join_limit);
        let (canary, lsn) = self.until_waiting(&aviary, &format!("join {name}"), within).await?;
        self.rule_of_join(name, &conf::rule(name)).await?;
        match &mut *self.join.lock() {
            Some(join) if join.name == *name && join.phase == Phase::Pending => {
                join.seen = Some((Arc::new(canary), lsn));
                Ok(Fact::Waiting { lsn })
            }
            Some(_) | None => Err(undone(name)),
        }
    }

    /// Write a rule of a join that is pending, and have it read. The timer's undo takes the same turn:
    /// it comes after this, or this does not come.
    async fn rule_of_join(&self, name: &SyncName, rule: &str) -> Attempt<()> {
        let _turn = self.role_file.lock().await;
        if !self.join.is(name, Phase::Pending) {
            return Err(undone(name));
        }
        self.write_names(rule).await?;
        self.reload()
    }

    fn already_waiting(&self, name: &SyncName) -> Option<Lsn> {
        match &*self.join.lock() {
            Some(join) if join.name == *name && join.phase == Phase::Pending => {
                join.seen.as_ref().map(|(_, lsn)| *lsn)
            }
            Some(_) | None => None,
        }
    }

    /// The rule is in force and proven: the member answers, or commits wait for it.
    async fn already_in_force(&self, name: &SyncName, deadline: Deadline) -> Attempt<Fact> {
        let lsn = self.prove_in_force(name, deadline).await?;
        Ok(Fact::Waiting { lsn })
    }

    async fn prove_in_force(&self, name: &SyncName, deadline: Deadline) -> Attempt<Lsn> {
        let aviary = self.aviary(deadline).await?;
        let session = self.session(deadline).await?;
        let canary = aviary.send(&format!("prove {name}"));
        let lsn = self.flushed(&session, deadline).await?;
        self.until_flushed_by(name, &canary, lsn, deadline).await?;
        Ok(lsn)
    }

    /// Wait until the canary came back and the member flushed it.
    pub(crate) async fn join_prove(&self, name: &SyncName, deadline: Deadline) -> Attempt<Fact> {
        let session = self.session(deadline).await?;
        let position = self.primary(&session, deadline).await?;
        let proven = |lsn| Fact::Proven {
            system: position.system.clone(),
            timeline: position.timeline,
            lsn,
        };
        let (phase, seen) = match &*self.join.lock() {
            Some(join) if join.name == *name => (Some(join.phase), join.seen.clone()),
            Some(_) | None => (None, None),
        };
        match (phase, seen) {
            (Some(Phase::Undone), _) => Err(undone(name)),
            (Some(Phase::Pending), None) => {
                Err(Trouble::failed(format!("no commit was seen waiting for {name}")))
            }
            (Some(Phase::Pending), Some((canary, lsn))) => {
                self.until_flushed_by(name, &canary, lsn, deadline).await?;
                if !self.join.settle(name, Phase::Proven) {
                    return Err(undone(name));
                }
                // Gone before anybody hears of the proof. If it cannot be taken away, the next
                // agent undoes the join: nobody was told.
                let path = &self.node.paths.joining;
                durable::remove(path).await.map_err(Trouble::io(path.display()))?;
                Ok(proven(lsn))
            }
            (Some(Phase::Proven) | None, _) => {
                if self.names_in_force(deadline).await? != conf::rule(name) {
                    return Err(Trouble::refused(
                        "no-such-join",
                        format!("commits do not wait for {name}; begin the join again"),
                    ));
                }
                let path = &self.node.paths.joining;
                durable::remove(path).await.map_err(Trouble::io(path.display()))?;
                Ok(proven(self.prove_in_force(name, deadline).await?))
            }
        }
    }

    fn undo_after(self: &Arc<Self>, name: SyncName, join_limit: Duration) {
        let server = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(join_limit).await;
            if server.join.settle(&name, Phase::Undone) {
                tracing::warn!(node = %server.node.settings.node, %name, "join undone: not proven");
                let _turn = server.role_file.lock().await;
                // An order that came in between has said what the rule is.
                let Some(before) = server.join.undone(&name) else { return };
                if let Err(trouble) = server.take_rule_back(&before).await {
                    tracing::error!(%name, %trouble, "the rule of an unproven join stays");
                }
            }
        });
    }

    async fn take_rule_back(&self, before: &str) -> Attempt<()> {
        self.write_names(before).await?;
        if let Some(postmaster) = self.running()? {
            postmaster.reload().map_err(Trouble::io("reload"))?;
        }
        let path = &self.node.paths.joining;
        durable::remove(path).await.map_err(Trouble::io(path.display()))
    }

    /// Undo a join that an earlier agent left unproven.
    pub(crate) async fn undo_abandoned_join(&self) -> Attempt<()> {
        if !self.node.paths.joining.exists() {
            return Ok(());
        }
        match BaseDirectory::look(&self.node.paths) {
            BaseDirectory::Primary => {
                tracing::warn!(node = %self.node.settings.node, "unproven join of before undone");
                let joining = marker::read::<Joining>(&self.node.paths.joining)
                    .map_err(|error| Trouble::refused("marker", error.to_string()))?;
                let before = joining.map(|joining| joining.before).unwrap_or_default();
                self.take_rule_back(&before).await
            }
            // A standby's rule is empty already.
            BaseDirectory::Standby | BaseDirectory::Empty | BaseDirectory::Unusable => {
                let path = &self.node.paths.joining;
                durable::remove(path).await.map_err(Trouble::io(path.display()))
            }
        }
    }

    /// Wait for nobody any more. Only after the record says so. Done when a commit came back.
    pub(crate) async fn leave(&self, deadline: Deadline) -> Attempt<Fact> {
        self.join.clear();
        match BaseDirectory::look(&self.node.paths) {
            BaseDirectory::Primary => {}
            BaseDirectory::Standby | BaseDirectory::Empty | BaseDirectory::Unusable => {
                return Err(Trouble::refused("not-a-primary", "the data is not a primary's"));
            }
        }
        {
            let _turn = self.role_file.lock().await;
            self.take_rule_back("").await?;
        }
        if self.running()?.is_none() {
            return Ok(Fact::Nothing);
        }
        self.until_names("", deadline).await?;
        let aviary = self.aviary(deadline).await?;
        let canary = aviary.send("leave");
        loop {
            match canary.flight() {
                crate::canary::Flight::Returned => return Ok(Fact::Nothing),
                crate::canary::Flight::Out => {}
                crate::canary::Flight::Broken(why) => return Err(Trouble::unknown(why)),
            }
            if deadline.passed() {
                return Err(Trouble::unknown("commits still wait"));
            }
            self.pause().await;
        }
    }

    /// The rule that a session sees. The checkpointer may not have applied it yet.
    pub(crate) async fn names_in_force(&self, deadline: Deadline) -> Attempt<String> {
        let session = self.session(deadline).await?;
        let sql = "SELECT current_setting('synchronous_standby_names')";
        Ok(session.value(sql, deadline.left()).await?)
    }

    /// Write a primary's rule. Not yet in force.
    pub(crate) async fn write_names(&self, rule: &str) -> Attempt<()> {
        self.write_role(&RoleConf::Primary { rule: rule.to_owned() }).await
    }

    /// Write a primary's rule and wait until a session sees it.
    pub(crate) async fn set_names(&self, rule: &str, deadline: Deadline) -> Attempt<()> {
        {
            let _turn = self.role_file.lock().await;
            self.write_names(rule).await?;
            self.reload()?;
        }
        self.until_names(rule, deadline).await
    }

    async fn until_names(&self, rule: &str, deadline: Deadline) -> Attempt<()> {
        while self.names_in_force(deadline).await? != rule {
            if deadline.passed() {
                return Err(Trouble::unknown(format!("the rule '{rule}' is not in force yet")));
            }
            self.pause().await;
        }
        Ok(())
    }
}

fn undone(name: &SyncName) -> Trouble {
    Trouble::failed(format!("the join of {name} was undone: it was not proven in time"))
}
