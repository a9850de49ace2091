//! Starting the server as primary, clients kept out (P8); and the part that starting as standby
//! shares with it.

use std::time::Duration;

use tier0_core::order::Fact;
use tier0_core::words::SyncName;

use crate::base_directory::BaseDirectory;
use crate::conf::{self, RoleConf};
use crate::deadline::Deadline;
use crate::durable;
use crate::hba::Clients;
use crate::join::check_length;
use crate::marker::{self, Member};
use crate::node::Server;
use crate::process::{self, Postmaster};
use crate::trouble::{Attempt, Trouble};

/// How often a starting server is asked whether it answers.
const ASK: Duration = Duration::from_millis(5);

impl Server {
    /// Start as primary with these names, or set the names of one that runs.
    pub(crate) async fn start(
        &self,
        names: Option<&SyncName>,
        deadline: Deadline,
    ) -> Attempt<Fact> {
        if let Some(name) = names {
            check_length(name)?;
        }
        let rule = names.map(conf::rule).unwrap_or_default();
        self.until_gone(deadline).await?;
        if self.running()?.is_some() {
            let session = self.session(deadline).await?;
            self.primary(&session, deadline).await?;
            if self.names_in_force(deadline).await? != rule {
                self.forget_join().await?;
                self.set_names(&rule, deadline).await?;
            }
            return Ok(Fact::Nothing);
        }
        match BaseDirectory::look(&self.node.paths) {
            BaseDirectory::Primary => {}
            BaseDirectory::Standby => {
                return Err(Trouble::refused(
                    "data-of-a-standby",
                    "the data directory is that of a standby (standby.signal is there)",
                ));
            }
            BaseDirectory::Empty => {
                return Err(Trouble::refused("no-data", "there is no data directory"));
            }
            BaseDirectory::Unusable => {
                return Err(Trouble::refused(
                    "data-unusable",
                    "the data directory cannot be used: making, cloning or rewinding it broke off",
                ));
            }
        }
        self.refuse_foreign_marker().await?;
        self.configure_primary(rule.clone()).await?;
        self.launch(deadline).await?;
        let in_force = self.names_in_force(deadline).await?;
        if in_force == rule {
            Ok(Fact::Nothing)
        } else {
            Err(Trouble::failed(format!(
                "synchronous_standby_names is '{in_force}' after the start, not '{rule}'"
            )))
        }
    }

    /// Write the files of a primary whose commits wait by this rule, clients kept out.
    pub(crate) async fn configure_primary(&self, rule: String) -> Attempt<()> {
        self.forget_join().await?;
        self.keep_operators_files().await?;
        let role = RoleConf::Primary { rule };
        self.write_configuration(&self.node.paths.data, Clients::KeptOut, &role).await
    }

    /// From here this order says what the rule is, not a join that was begun before.
    pub(crate) async fn forget_join(&self) -> Attempt<()> {
        let _turn = self.role_file.lock().await;
        self.join.clear();
        let path = &self.node.paths.joining;
        durable::remove(path).await.map_err(Trouble::io(path.display()))
    }

    /// A marker that cannot be read or is of another cluster says that the data directory is not
    /// what the record takes it for.
    async fn refuse_foreign_marker(&self) -> Attempt<()> {
        let refuse = |sentence| Err(Trouble::refused("marker", sentence));
        match marker::read::<Member>(&self.node.paths.member) {
            Ok(None) => Ok(()),
            Ok(Some(member)) => {
                let control = self.control.read(&self.node).await;
                let system = control.map_err(|error| Trouble::failed(error.to_string()))?.system;
                if member.system == system {
                    Ok(())
                } else {
                    refuse(format!(
                        "the marker is of system {}, the data of {system}",
                        member.system
                    ))
                }
            }
            Err(error) => refuse(error.to_string()),
        }
    }

    /// No server runs in the data directory, and PostgreSQL sees it so. It takes a process that
    /// nobody waited for as alive, and would refuse to start, or to rewind.
    pub(crate) async fn until_nothing_is_left(&self, deadline: Deadline) -> Attempt<()> {
        self.until_gone(deadline).await?;
        self.end_orphans().await?;
        let data = &self.node.paths.data;
        let (socket, port) = (&self.node.paths.socket, self.node.own.address.port());
        let look = || {
            let at_data = Postmaster::is_zombie(data);
            let at_socket = Postmaster::is_zombie_at_socket(socket, port);
            at_data.and_then(|it| Ok(it || at_socket?)).map_err(Trouble::io("look for the server"))
        };
        while look()? {
            if deadline.passed() {
                return Err(Trouble::failed("the ended server was not taken off by its parent"));
            }
            tokio::time::sleep(ASK).await;
        }
        Ok(())
    }

    /// Start the server on what the data directory holds and wait until it answers.
    pub(crate) async fn launch(&self, deadline: Deadline) -> Attempt<()> {
        self.until_nothing_is_left(deadline).await?;
        self.looking.forget().await;
        self.ordering.forget().await;
        let mut child = process::spawn(&self.node).map_err(Trouble::io("start the server"))?;
        let (ended, mut end) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            // Waiting takes it off when it ends, now or in a year.
            let status = child.wait().await;
            // Nobody listens any more once the start is over.
            let _ = ended.send(status.map_or_else(|error| error.to_string(), |s| s.to_string()));
        });
        loop {
            match self.ordering.get(&self.node, self.node.settings.probe_limit).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    tokio::select! {
                        how = &mut end => {
                            let how = how.unwrap_or_else(|_| "an unknown end".to_owned());
                            return Err(Trouble::failed(format!(
                                "the server ended while starting ({how}): {}", self.log_end()
                            )));
                        }
                        () = tokio::time::sleep(ASK) => {}
                    }
                    if deadline.passed() {
                        return Err(Trouble::unknown(format!("started, no answer yet: {error}")));
                    }
                }
            }
        }
    }

    /// The last lines of the server's log.
    pub(crate) fn log_end(&self) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let read = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(&self.node.paths.log)?;
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(length.saturating_sub(2_000)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(4).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}
