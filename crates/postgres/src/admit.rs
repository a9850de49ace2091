//! Letting clients in after a start: only once commits are seen to wait for the member, or the
//! record says exposed (P8).
//!
//! A standby near by answers a canary before anybody can see it wait. So the proof asks first for
//! a name that nobody has: `<member>-proof`. Under it the canary must wait and is seen; then the
//! rule changes to the member's name, and the member's flush sends the canary back. The shared
//! flag that backends read stays set throughout, because a change from one name to another never
//! clears it (`syncrep.c` `SyncRepUpdateSyncStandbysDefined`), so the wait that was seen under the
//! first name holds under the second. The canary's commit is behind the end of recovery, so a
//! member that flushed the one has flushed the other. Costs two reloads while no client is there.

use tier0_core::order::Fact;
use tier0_core::words::SyncName;

use crate::conf;
use crate::deadline::Deadline;
use crate::hba::Clients;
use crate::join::check_length;
use crate::node::Server;
use crate::trouble::{Attempt, Trouble};

impl Server {
    /// Let clients in.
    pub(crate) async fn admit(
        &self,
        member: Option<&SyncName>,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        let Some(postmaster) = self.running()? else {
            return Err(Trouble::refused("not-running", "the server is not running"));
        };
        let session = self.session(deadline).await?;
        self.primary(&session, deadline).await?;
        let expected = member.map(conf::rule).unwrap_or_default();
        let in_force = self.names_in_force(deadline).await?;
        let proving = member.map(|name| conf::rule_for(&proof_name(name)));
        if in_force != expected && Some(&in_force) != proving.as_ref() {
            return Err(Trouble::refused(
                "names-differ",
                format!("commits wait for '{in_force}', the order says '{expected}'"),
            ));
        }
        let admitted = self.clients() == Clients::Admitted;
        let since_start = self.clients_since().is_some_and(|at| at >= postmaster.started);
        if admitted && since_start && in_force == expected {
            return Ok(Fact::Nothing);
        }
        if let Some(name) = member {
            check_length(name)?;
            if admitted {
                // Somebody started the server with the doors open: close them first.
                self.write_clients(Clients::KeptOut).await?;
                self.reload()?;
            }
            self.prove_waiting(name, deadline).await?;
        }
        self.open_doors().await?;
        Ok(Fact::Nothing)
    }

    /// Let clients in without asking for any proof: the caller knows why it may.
    pub(crate) async fn open_doors(&self) -> Attempt<()> {
        self.write_clients(Clients::Admitted).await?;
        // The postmaster reads the file in its signal handler, before it takes the next
        // connection (`postmaster.c` `SIGHUP_handler`).
        self.reload()
    }

    async fn prove_waiting(&self, name: &SyncName, deadline: Deadline) -> Attempt<()> {
        let aviary = self.aviary(deadline).await?;
        self.write_names(&conf::rule_for(&proof_name(name))).await?;
        self.reload()?;
        let seen = self.until_waiting(&aviary, &format!("admit {name}"), deadline).await;
        // Whatever was seen, the rule becomes the member's. Until then commits wait for nobody
        // that exists, which is the safe side, and no client is there.
        self.write_names(&conf::rule(name)).await?;
        self.reload()?;
        let (canary, lsn) = seen?;
        self.until_flushed_by(name, &canary, lsn, deadline).await
    }
}

/// A name that no standby ever has: a membership's name ends in digits.
pub(crate) fn proof_name(member: &SyncName) -> String {
    format!("{member}-proof")
}
