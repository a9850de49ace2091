//! A standby takes its new name: the marker first, then the stream.
//!
//! Source: `xlogrecovery.c` (`StartupRequestWalReceiverRestart`): a changed `primary_conninfo`
//! restarts the receiver without a restart of the server.

use tier0_config::NodeSettings;
use tier0_core::order::Fact;
use tier0_core::words::SyncName;

use crate::conf::RoleConf;
use crate::conninfo;
use crate::deadline::Deadline;
use crate::join::check_length;
use crate::marker::{self, Member};
use crate::node::Server;
use crate::session::Session;
use crate::trouble::{Attempt, Trouble};

impl Server {
    /// Stream under this name. Done when it does.
    pub(crate) async fn rename(&self, name: &SyncName, deadline: Deadline) -> Attempt<Fact> {
        check_length(name)?;
        if *name.node() != self.node.settings.node {
            return Err(Trouble::refused(
                "not-that-member",
                format!("{name} is not a membership of {}", self.node.settings.node),
            ));
        }
        let session = self.session(deadline).await?;
        let standby = self.standby(&session, deadline).await?;
        let upstream = self.configured_upstream(&session, deadline).await?;
        let streams = standby.stream.is_some_and(|s| s.is_streaming_as(&name.to_string()));
        let member = Member { name: name.clone(), system: standby.position.system };
        let marked = matches!(marker::read::<Member>(&self.node.paths.member),
            Ok(Some(there)) if there == member);
        if !marked {
            marker::write(&self.node.paths.member, &member)
                .await
                .map_err(|error| Trouble::failed(error.to_string()))?;
        }
        if streams {
            return Ok(Fact::Nothing);
        }
        self.stream_as(&session, upstream, name, deadline).await?;
        Ok(Fact::Nothing)
    }

    /// Stream from `upstream` under the name of a member, without a restart; returns once it does.
    pub(crate) async fn stream_as(
        &self,
        session: &Session,
        upstream: &NodeSettings,
        name: &SyncName,
        deadline: Deadline,
    ) -> Attempt<()> {
        let role = RoleConf::Standby { upstream, member: Some(name) };
        self.write_role(&role).await?;
        self.reload()?;
        loop {
            let standby = self.standby(session, deadline).await?;
            if standby.stream.is_some_and(|stream| stream.is_streaming_as(&name.to_string())) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(Trouble::unknown(format!("it does not stream as {name} yet")));
            }
            self.pause().await;
        }
    }

    /// The node that the running standby is told to follow.
    pub(crate) async fn configured_upstream(
        &self,
        session: &Session,
        deadline: Deadline,
    ) -> Attempt<&NodeSettings> {
        let setting =
            session.value("SELECT current_setting('primary_conninfo')", deadline.left()).await?;
        let values = conninfo::parse(&setting).unwrap_or_default();
        let is = |node: &NodeSettings| {
            values.get("host") == Some(&node.address.ip().to_string())
                && values.get("port") == Some(&node.address.port().to_string())
        };
        match self.node.peers().find(|(_, node)| is(node)) {
            Some((_, node)) => Ok(node),
            None => Err(Trouble::refused(
                "no-upstream",
                "this standby does not follow another node of its datastore",
            )),
        }
    }
}
