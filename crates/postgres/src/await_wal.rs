//! Before a planned switch: a checkpoint so that the stop is short, how far the primary has
//! written, and waiting until the standby has as much.

use tier0_core::order::Fact;
use tier0_core::words::WalPosition;

use crate::deadline::Deadline;
use crate::node::Server;
use crate::session::Purpose;
use crate::trouble::{Attempt, Trouble};

impl Server {
    /// Write a checkpoint. In a session of its own: it can take minutes.
    pub(crate) async fn checkpoint(&self, deadline: Deadline) -> Attempt<Fact> {
        let session = self.node.admin("postgres", Purpose::Agent, deadline.left()).await?;
        session.run("CHECKPOINT", deadline.left()).await?;
        Ok(Fact::Nothing)
    }

    /// How far the primary has flushed.
    pub(crate) async fn drain(&self, deadline: Deadline) -> Attempt<Fact> {
        let session = self.session(deadline).await?;
        let position = self.primary(&session, deadline).await?;
        Ok(Fact::Wal { position })
    }

    /// Wait until the standby has flushed `position`. Positions of another cluster or timeline
    /// cannot be compared and are refused.
    pub(crate) async fn await_wal(
        &self,
        position: &WalPosition,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        let session = self.session(deadline).await?;
        loop {
            let has = self.standby(&session, deadline).await?.position;
            if has >= *position {
                return Ok(Fact::Wal { position: has });
            }
            if has.partial_cmp(position).is_none() {
                return Err(Trouble::refused(
                    "other-history",
                    format!(
                        "this standby is at {has} of system {}, asked for {position} of system {}",
                        has.system, position.system
                    ),
                ));
            }
            if deadline.passed() {
                return Err(Trouble::unknown(format!("{has} received, waiting for {position}")));
            }
            self.pause().await;
        }
    }
}
