//! A real write and read on a primary, over a session of its own: an old session would not notice
//! that nobody can connect any more.

use tier0_core::order::Fact;
use tier0_core::words::SyncName;

use crate::conf;
use crate::deadline::Deadline;
use crate::node::Server;
use crate::quote;
use crate::session::Purpose;
use crate::trouble::{Attempt, Trouble};

impl Server {
    /// Write the token, read it back; takes rows off that are older than an hour, in the same
    /// commit so that there is only one to wait for. Where commits wait until a standby has joined
    /// (P9), this one does not: nobody is told that it is safe.
    pub(crate) async fn validate(&self, token: &str, deadline: Deadline) -> Attempt<Fact> {
        let in_force = self.names_in_force(deadline).await?;
        let database = &self.node.settings.postgres.database;
        let mut peers = self.node.peers();
        let alone = peers.any(|(id, _)| in_force == conf::rule(&SyncName::nobody(id.clone())));
        let purpose = if alone { Purpose::Agent } else { Purpose::Canary };
        let session = self.node.admin(database, purpose, deadline.left()).await?;
        let token = quote::literal(token);
        let write = format!(
            "WITH old AS (DELETE FROM tier0.canary WHERE written_at < now() - interval '1 hour') \
             INSERT INTO tier0.canary (token) VALUES ({token}) RETURNING id"
        );
        let id = session.value(&write, deadline.left()).await?;
        let id: i64 = id.parse().map_err(|_| Trouble::failed("the row has no number"))?;
        let read = format!("SELECT count(*) FROM tier0.canary WHERE id = {id} AND token = {token}");
        if session.value(&read, deadline.left()).await? != "1" {
            return Err(Trouble::failed("the row that was written is not there"));
        }
        Ok(Fact::Nothing)
    }
}
