//! Where the cluster's leader is: near to the orchestrator that acts, if it can be.
//!
//! Every write goes through the leader, and losing it costs an election. The orchestrator that acts is
//! where losing the writer's region costs nothing; the leader had better be there as well.

use serde::Deserialize;
use serde_json::json;

use super::Etcd;
use super::cluster::Call;
use crate::StoreError;

/// What a member says of itself; ids are numbers as text.
#[derive(Debug, Deserialize)]
struct Status {
    header: Header,
    #[serde(default)]
    leader: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    member_id: String,
}

impl Etcd {
    /// Have the first member lead, if another one does and both answer.
    pub(super) fn lead_from_first(&mut self) -> Result<(), StoreError> {
        let call = Call::begin("draw etcd's leader near");
        let status = "maintenance/status";
        let nothing = json!({});
        let here: Status = self.cluster.of_member(&call, 0, status, &nothing)?;
        if here.leader.is_empty() || here.leader == here.header.member_id {
            return Ok(());
        }
        for other in 1..self.cluster.members() {
            // One that is away is not the leader that the first one follows.
            let Ok(there) = self.cluster.of_member::<Status>(&call, other, status, &nothing) else {
                continue;
            };
            if there.header.member_id == here.leader {
                let wanted = json!({"targetID": here.header.member_id});
                let path = "maintenance/transfer-leadership";
                let _: serde_json::Value = self.cluster.of_member(&call, other, path, &wanted)?;
                tracing::info!("etcd is led by the nearest member from now on");
                return Ok(());
            }
        }
        Ok(())
    }
}
