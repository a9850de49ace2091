//! `RedisAskMaster`: is a master alive whose agent is silent?
//!
//! A switch that goes on without the old side leaves behind what the old master acknowledged since
//! (D4). That is right when it is dead or frozen, and wrong when only its agent is.

use tier0_core::order::Fact;
use tier0_core::words::NodeId;

use crate::connection::{AskError, Batch, Door};
use crate::node::{RedisNode, Run};
use crate::trouble::{Ran, Trouble};

impl RedisNode {
    pub(crate) async fn ask_master(&self, run: &Run<'_>, master: &NodeId) -> Ran {
        let Some(address) = self.address_of(master) else {
            return Err(Trouble::refused(
                "redis-no-such-upstream",
                format!("{} does not know {master}", self.settings.id),
            ));
        };
        let door = Door::new(address, Some(self.settings.password.clone()));
        let within = run.left(self.settings.deadlines.answer);
        match door.ask_plainly(Batch::new().tell(["PING"]), within).await {
            // Whatever it says, it says something: it serves its clients.
            Ok(_) | Err(AskError::Server { .. }) => Err(Trouble::refused(
                "redis-master-lives",
                format!(
                    "{master} answers although its agent does not: what it acknowledges would be \
                     left behind"
                ),
            )),
            Err(_) => Ok(Fact::Nothing),
        }
    }
}
