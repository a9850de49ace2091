//! Taking over a server that ran before tier0, while it runs and serves: its own configuration
//! files stay the operator's, with an include at the end of `postgresql.conf` and tier0's lines
//! before theirs in `pg_hba.conf` and `pg_ident.conf`.
//!
//! What the operator wrote is kept beside the data directory, because a base backup or a rewind
//! brings the source's files along, and because the server must also run without letting clients
//! in (P8) and then let exactly the operator's clients in again.
//!
//! Nothing here restarts anything. Commits wait afterwards for whom they waited before.

use std::path::PathBuf;

use tier0_core::words::NodeId;

use crate::base_directory::BaseDirectory;
use crate::conf::{self, INCLUDE, RoleConf};
use crate::configure::{
    CLIENTS_FILE, IDENT_FILE, MAIN_FILE, ROLE_FILE, make_private, write_and_read_back,
};
use crate::deadline::Deadline;
use crate::durable;
use crate::hba::{self, Clients};
use crate::node::Server;
use crate::quote;
use crate::session::Session;
use crate::trouble::{Attempt, Trouble};

/// What adoption changes in an operator's files, for people who want to read or do it themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptionLines {
    /// The operator's `postgresql.conf`, and the line that must be its last setting.
    pub main: (PathBuf, String),
    /// The included file, and all of its text.
    pub role: (PathBuf, String),
    /// `pg_hba.conf`, and the lines before all others.
    pub clients: (PathBuf, String),
    /// `pg_ident.conf`, and the line before all others.
    pub ident: (PathBuf, String),
}

/// What adopting a server came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Settings that were taken out of `postgresql.auto.conf`, which is read last.
    pub taken_out: Vec<String>,
    /// Settings that take effect only when the server is started the next time.
    pub after_restart: Vec<String>,
}

impl Server {
    /// The lines for a server that follows `upstream`, or is primary.
    pub(crate) async fn adoption_lines(
        &self,
        upstream: Option<&NodeId>,
        rule: &str,
    ) -> Attempt<AdoptionLines> {
        let user = self.system_user().await?;
        let directory = self.node.config_directory(&self.node.paths.data);
        let role = self.adopted_role(upstream, rule)?;
        Ok(AdoptionLines {
            main: (directory.join(MAIN_FILE), format!("{INCLUDE}\n")),
            role: (directory.join(ROLE_FILE), role.text(&self.node)),
            clients: (directory.join(CLIENTS_FILE), hba::own_lines(&self.node)),
            ident: (directory.join(IDENT_FILE), hba::ident_line(&self.node, user)),
        })
    }

    /// Adopt the running server. Safe to repeat; a role file that is there is left alone, since
    /// it may be the agent's by now.
    pub(crate) async fn adopt(
        &self,
        upstream: Option<&NodeId>,
        deadline: Deadline,
    ) -> Attempt<Adopted> {
        if self.node.own.adopted.is_none() {
            return Err(Trouble::failed("the configuration does not call this node adopted"));
        }
        if self.running()?.is_none() {
            return Err(Trouble::failed("the server does not run here"));
        }
        if self.clients() == Clients::KeptOut {
            // Only the agent may open what is closed, and only with the proof (P8).
            return Err(Trouble::failed("tier0 keeps clients out of this server at the moment"));
        }
        self.keep_operators_files().await?;
        self.prepare_streaming().await?;
        let directory = self.node.config_directory(&self.node.paths.data).to_owned();
        let ident = self.operators_file(IDENT_FILE)?;
        let user = self.system_user().await?;
        let ident = hba::pg_ident_conf(&self.node, user, ident.as_deref());
        write_and_read_back(&directory.join(IDENT_FILE), &ident).await?;
        self.open_doors().await?;
        let session = self.first_session(deadline).await?;
        self.refuse_bad_lines(&session, deadline).await?;
        let role_file = directory.join(ROLE_FILE);
        if !role_file.exists() {
            let rule = session
                .value("SELECT current_setting('synchronous_standby_names')", deadline.left())
                .await?;
            let role = self.adopted_role(upstream, &rule)?;
            write_and_read_back(&role_file, &role.text(&self.node)).await?;
        }
        let main = directory.join(MAIN_FILE);
        let text = std::fs::read_to_string(&main).map_err(Trouble::io(main.display()))?;
        let including = conf::including(&text);
        if including != text {
            write_and_read_back(&main, &including).await?;
        }
        let taken_out = self.take_out_of_auto_conf(&session, deadline).await?;
        self.reload()?;
        if upstream.is_some() {
            self.until_streaming_for_adoption(&session, deadline).await?;
            self.keep_local_slots(&session, deadline).await;
        }
        let pending = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name";
        let rows = session.rows(pending, deadline.left()).await?;
        let after_restart = rows.into_iter().flatten().flatten().collect();
        Ok(Adopted { taken_out, after_restart })
    }

    fn adopted_role(&self, upstream: Option<&NodeId>, rule: &str) -> Attempt<RoleConf<'_>> {
        let Some(upstream) = upstream else {
            return Ok(RoleConf::Primary { rule: rule.to_owned() });
        };
        match self.node.peers().find(|(id, _)| *id == upstream) {
            Some((_, node)) => Ok(RoleConf::Standby { upstream: node, member: None }),
            None => Err(Trouble::failed(format!("{upstream} is no other node of its datastore"))),
        }
    }

    /// The agent's own way in, once the reloaded files have opened it.
    async fn first_session(&self, deadline: Deadline) -> Attempt<std::sync::Arc<Session>> {
        loop {
            match self.session(deadline.at_most(self.node.settings.probe_limit)).await {
                Ok(session) => return Ok(session),
                Err(trouble) if deadline.passed() => return Err(trouble),
                Err(_) => self.pause().await,
            }
        }
    }

    /// A line that PostgreSQL cannot read leaves the old file in force.
    async fn refuse_bad_lines(&self, session: &Session, deadline: Deadline) -> Attempt<()> {
        let bad = "SELECT format('line %s: %s', line_number, error) FROM pg_hba_file_rules \
                   WHERE error IS NOT NULL LIMIT 1";
        match session.rows(bad, deadline.left()).await?.into_iter().flatten().flatten().next() {
            None => Ok(()),
            Some(why) => Err(Trouble::failed(format!("{CLIENTS_FILE}: {why}"))),
        }
    }

    async fn take_out_of_auto_conf(
        &self,
        session: &Session,
        deadline: Deadline,
    ) -> Attempt<Vec<String>> {
        let path = self.node.paths.data.join("postgresql.auto.conf");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0.trim().to_ascii_lowercase()))
            .filter(|name| conf::overrides(&self.node, name))
            .collect();
        names.sort();
        names.dedup();
        for name in &names {
            let reset = format!("ALTER SYSTEM RESET {}", quote::identifier(name));
            session.run(&reset, deadline.left()).await?;
        }
        Ok(names)
    }

    async fn until_streaming_for_adoption(
        &self,
        session: &Session,
        deadline: Deadline,
    ) -> Attempt<()> {
        let own = &self.node.settings.node;
        loop {
            let stream = self.standby(session, deadline).await?.stream;
            // A member of the takeover set that is adopted once more streams under its own name.
            let streams = stream.is_some_and(|stream| {
                stream.status == "streaming"
                    && stream.name.is_some_and(|name| name.starts_with(&own.to_string()))
            });
            if streams {
                return Ok(());
            }
            if deadline.passed() {
                return Err(Trouble::failed(format!(
                    "it does not stream as {}: see its log",
                    own.join_name()
                )));
            }
            self.pause().await;
        }
    }

    /// Keep what the operator's files of an adopted server say now. Not while a rewind may have
    /// brought the source's.
    pub(crate) async fn keep_operators_files(&self) -> Attempt<()> {
        let paths = &self.node.paths;
        let usable = match BaseDirectory::look(paths) {
            BaseDirectory::Primary | BaseDirectory::Standby => true,
            BaseDirectory::Empty | BaseDirectory::Unusable => false,
        };
        if self.node.own.adopted.is_none() || !usable {
            return Ok(());
        }
        let kept = &paths.operators;
        make_private(kept).map_err(Trouble::io(kept.display()))?;
        for name in [MAIN_FILE, CLIENTS_FILE, IDENT_FILE] {
            let path = self.node.config_directory(&paths.data).join(name);
            let text = std::fs::read_to_string(&path).map_err(Trouble::io(path.display()))?;
            let copy = kept.join(name);
            let same = std::fs::read_to_string(&copy).is_ok_and(|there| there == text);
            if !same && !hba::is_own(&text) {
                durable::write(&copy, &text).await.map_err(Trouble::io(copy.display()))?;
            }
        }
        Ok(())
    }

    /// What one of the operator's files said last; `None` for a server that tier0 made.
    pub(crate) fn operators_file(&self, name: &str) -> Attempt<Option<String>> {
        if self.node.own.adopted.is_none() {
            return Ok(None);
        }
        let path = self.node.paths.operators.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(Trouble::failed(format!(
                "{}: {error}; the server is not adopted yet, see `tier0 init`",
                path.display()
            ))),
        }
    }
}
