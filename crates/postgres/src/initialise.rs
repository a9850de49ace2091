//! Making the very first data directory of a datastore. Every other one is cloned.
//!
//! No password is in an argument, in the environment or in the server's log: roles are made by
//! SQL over the Unix socket, in a session that logs no statement.

use std::time::Duration;

use rustix::process::Signal;
use tier0_config::Secret;

use crate::base_directory::BaseDirectory;
use crate::command;
use crate::conf::RoleConf;
use crate::configure::make_private;
use crate::deadline::Deadline;
use crate::durable;
use crate::hba::Clients;
use crate::node::Server;
use crate::quote::{identifier, literal};
use crate::session::{Purpose, SessionError};
use crate::trouble::{Attempt, Trouble};

/// `initdb` writes some 40 MB and flushes them.
const LIMIT: Duration = Duration::from_secs(300);

/// Why the first data directory was not made.
#[derive(Debug, thiserror::Error)]
pub enum InitialiseError {
    /// There is data already.
    #[error("{0} holds data already")]
    HasData(std::path::PathBuf),
    /// Something went wrong; the next call begins anew.
    #[error("initialise: {0}")]
    Failed(String),
}

impl From<Trouble> for InitialiseError {
    fn from(trouble: Trouble) -> Self {
        InitialiseError::Failed(trouble.to_string())
    }
}

impl From<SessionError> for InitialiseError {
    fn from(error: SessionError) -> Self {
        InitialiseError::Failed(error.to_string())
    }
}

impl Server {
    /// Make it; see [`crate::PostgresNode::initialise`].
    pub(crate) async fn initialise(&self, password: &Secret) -> Result<(), InitialiseError> {
        let deadline = Deadline::after(LIMIT);
        let paths = &self.node.paths;
        if paths.initialising.exists() {
            // An earlier call broke off; nobody has written to its server but that call.
            self.stop(deadline).await?;
            self.remove_data().await?;
        } else if BaseDirectory::look(paths) != BaseDirectory::Empty {
            return Err(InitialiseError::HasData(paths.data.clone()));
        }
        self.make_directories().await?;
        let parent = paths.data.parent().unwrap_or(std::path::Path::new("/"));
        make_private(parent).map_err(Trouble::io(parent.display()))?;
        durable::write(&paths.initialising, "")
            .await
            .map_err(Trouble::io(paths.initialising.display()))?;
        self.make_cluster().await?;
        let role = RoleConf::Primary { rule: String::new() };
        self.write_configuration(&paths.data, Clients::KeptOut, &role).await?;
        self.launch(deadline).await?;
        self.make_roles(password, deadline).await?;
        self.make_tables(deadline).await?;
        self.stop_cleanly(deadline).await?;
        durable::remove(&paths.initialising)
            .await
            .map_err(Trouble::io(paths.initialising.display()))?;
        Ok(())
    }

    async fn remove_data(&self) -> Attempt<()> {
        let data = &self.node.paths.data;
        durable::remove_tree(data).await.map_err(Trouble::io(data.display()))
    }

    async fn make_cluster(&self) -> Attempt<()> {
        let program = self.node.program("initdb");
        let admin = format!("--username={}", self.node.settings.postgres.admin_user);
        let arguments = [
            "--pgdata".as_ref(),
            self.node.paths.data.as_os_str(),
            admin.as_ref(),
            "--encoding=UTF8".as_ref(),
            "--locale=C.UTF-8".as_ref(),
            // One of the two conditions of pg_rewind, and the only thing that notices bad blocks.
            "--data-checksums".as_ref(),
            // With an archive every stop pads its last segment, flushes it here and on the standby,
            // and archives it (`xlog.c` `ShutdownXLOG`). Measured: a stop takes 50 to 65 ms with
            // 4 MB and 90 to 190 ms with the default of 16 MB.
            "--wal-segsize=4".as_ref(),
            "--auth-local=peer".as_ref(),
            "--auth-host=scram-sha-256".as_ref(),
        ];
        let made = command::run(&program, &arguments).await;
        made.map(|_| ()).map_err(|error| Trouble::failed(error.to_string()))
    }

    async fn make_roles(
        &self,
        password: &Secret,
        deadline: Deadline,
    ) -> Result<(), InitialiseError> {
        let postgres = &self.node.settings.postgres;
        let session = self.node.admin("postgres", Purpose::Agent, deadline.left()).await?;
        let replication = identifier(&postgres.replication_user);
        let application = identifier(&postgres.application_user);
        let database = identifier(&postgres.database);
        let replication_password = literal(self.node.settings.replication_password.expose());
        let application_password = literal(password.expose());
        for sql in [
            // The next statements hold passwords.
            "SET log_statement = 'none'".to_owned(),
            "SET log_min_error_statement = 'panic'".to_owned(),
            "SET log_min_duration_statement = -1".to_owned(),
            format!("CREATE ROLE {replication} REPLICATION LOGIN PASSWORD {replication_password}"),
            format!("CREATE ROLE {application} LOGIN PASSWORD {application_password}"),
            // Or `pg_stat_replication` shows it names only: the specification looks as this role.
            format!("GRANT pg_read_all_stats TO {application}"),
            // A standby asks its new primary for the checkpoint that must precede pg_rewind.
            format!("GRANT pg_checkpoint TO {replication}"),
            // What pg_rewind reads its source with (pg_rewind's manual page, "Notes").
            format!(
                "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), \
                     pg_stat_file(text, boolean), pg_read_binary_file(text), \
                     pg_read_binary_file(text, bigint, bigint, boolean) TO {replication}"
            ),
            format!("CREATE DATABASE {database} OWNER {application}"),
            format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"),
            "REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC".to_owned(),
            format!("GRANT CONNECT ON DATABASE postgres TO {replication}"),
        ] {
            session.run(&sql, deadline.left()).await?;
        }
        Ok(())
    }

    async fn make_tables(&self, deadline: Deadline) -> Result<(), InitialiseError> {
        let postgres = &self.node.settings.postgres;
        let database = &postgres.database;
        let session = self.node.admin(database, Purpose::Agent, deadline.left()).await?;
        let application = identifier(&postgres.application_user);
        for sql in [
            "CREATE SCHEMA tier0".to_owned(),
            "CREATE TABLE tier0.canary (\
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                token text NOT NULL, \
                written_at timestamptz NOT NULL DEFAULT now())"
                .to_owned(),
            format!("SET ROLE {application}"),
            // The specification's table: one row for each report of a device.
            "CREATE TABLE public.device_telemetry (\
                device_id text NOT NULL, \
                device_type text NOT NULL, \
                site_id text NOT NULL, \
                timestamp_utc timestamptz NOT NULL, \
                metrics jsonb NOT NULL DEFAULT '{}', \
                status jsonb NOT NULL DEFAULT '{}', \
                PRIMARY KEY (device_id, timestamp_utc))"
                .to_owned(),
        ] {
            session.run(&sql, deadline.left()).await?;
        }
        Ok(())
    }

    /// Stop, and accept nothing but a clean end.
    async fn stop_cleanly(&self, deadline: Deadline) -> Attempt<()> {
        if let Some(postmaster) = self.running()? {
            postmaster.signal(Signal::INT).map_err(Trouble::io("stop"))?;
            match tokio::time::timeout(deadline.left(), postmaster.ended()).await {
                Ok(ended) => ended.map_err(Trouble::io("wait for the server's end"))?,
                Err(_) => return Err(Trouble::failed("the new server does not stop")),
            }
        }
        self.looking.forget().await;
        self.ordering.forget().await;
        match self.clean_end().await? {
            Some(_) => Ok(()),
            None => Err(Trouble::failed("the new server did not stop cleanly")),
        }
    }
}
