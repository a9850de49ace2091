//! Writing a node's configuration, and reading it back (P7): clones and rewinds bring the
//! source's files along, so everything is written anew after each.

use std::path::Path;

use crate::command;
use crate::conf::{self, RoleConf};
use crate::durable;
use crate::hba::{self, Clients};
use crate::node::Server;
use crate::quote;
use crate::trouble::{Attempt, Trouble};

/// The included file that changes with the role.
pub(crate) const ROLE_FILE: &str = "tier0.conf";
pub(crate) const MAIN_FILE: &str = "postgresql.conf";
pub(crate) const CLIENTS_FILE: &str = "pg_hba.conf";
pub(crate) const IDENT_FILE: &str = "pg_ident.conf";

impl Server {
    /// Write every configuration file into `data`, which is the data directory or a clone that is
    /// about to become it, and make the directories around it.
    pub(crate) async fn write_configuration(
        &self,
        data: &Path,
        clients: Clients,
        role: &RoleConf<'_>,
    ) -> Attempt<()> {
        self.prepare_streaming().await?;
        let user = self.system_user().await?;
        // Always in the data directory, wherever the rest is.
        let auto_file = data.join("postgresql.auto.conf");
        let auto = std::fs::read_to_string(&auto_file).unwrap_or_default();
        write_and_read_back(&auto_file, &conf::cleaned_auto_conf(&self.node, &auto)).await?;
        let main = match self.operators_file(MAIN_FILE)? {
            Some(operators) => conf::including(&operators),
            None => conf::postgresql_conf(&self.node),
        };
        let ident = self.operators_file(IDENT_FILE)?;
        for (name, text) in [
            (MAIN_FILE, main),
            (ROLE_FILE, role.text(&self.node)),
            (CLIENTS_FILE, self.clients_text(clients)?),
            (IDENT_FILE, hba::pg_ident_conf(&self.node, user, ident.as_deref())),
        ] {
            write_and_read_back(&self.node.config_directory(data).join(name), &text).await?;
        }
        Ok(())
    }

    fn clients_text(&self, clients: Clients) -> Attempt<String> {
        let operators = self.operators_file(CLIENTS_FILE)?;
        Ok(hba::pg_hba_conf(&self.node, clients, operators.as_deref()))
    }

    fn config_file(&self, name: &str) -> std::path::PathBuf {
        self.node.config_directory(&self.node.paths.data).join(name)
    }

    /// Write what changes with the role, into the data directory. Not yet in force.
    ///
    /// A primary's rule is on disk when this returns. A standby's is the same after a power cut as
    /// before: nobody; and whom it follows is written anew before each start.
    pub(crate) async fn write_role(&self, role: &RoleConf<'_>) -> Attempt<()> {
        let path = self.config_file(ROLE_FILE);
        let text = role.text(&self.node);
        match role {
            RoleConf::Primary { .. } => write_and_read_back(&path, &text).await,
            RoleConf::Standby { .. } => replace_and_read_back(&path, &text).await,
        }
    }

    /// Write who may connect, into the data directory. Not yet in force. Every start writes it
    /// anew with clients kept out, so a power cut can only keep more out.
    pub(crate) async fn write_clients(&self, clients: Clients) -> Attempt<()> {
        let path = self.config_file(CLIENTS_FILE);
        replace_and_read_back(&path, &self.clients_text(clients)?).await
    }

    /// Who may connect by the file. A file that cannot be read admits nobody: a server that runs
    /// with an older one was reported before.
    pub(crate) fn clients(&self) -> Clients {
        match std::fs::read_to_string(self.config_file(CLIENTS_FILE)) {
            Ok(text) => Clients::of_file(&text),
            Err(_) => Clients::KeptOut,
        }
    }

    /// When the file that says who may connect was written, in seconds since 1970.
    pub(crate) fn clients_since(&self) -> Option<i64> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(self.config_file(CLIENTS_FILE)).ok().map(|data| data.mtime())
    }

    /// Socket, archive and log directories, for the owner only.
    pub(crate) async fn make_directories(&self) -> Attempt<()> {
        let paths = &self.node.paths;
        let log = paths.log.parent().unwrap_or(Path::new("/"));
        for directory in [paths.socket.as_path(), paths.archive.as_path(), log] {
            make_private(directory).map_err(Trouble::io(directory.display()))?;
        }
        Ok(())
    }

    /// What streaming and cloning need outside the data directory.
    pub(crate) async fn prepare_streaming(&self) -> Attempt<()> {
        self.make_directories().await?;
        self.write_passfile().await
    }

    async fn write_passfile(&self) -> Attempt<()> {
        let user = quote::passfile_field(&self.node.settings.postgres.replication_user);
        let password = quote::passfile_field(self.node.settings.replication_password.expose());
        let path = &self.node.paths.passfile;
        let text = format!("*:*:*:{user}:{password}\n");
        durable::write(path, &text).await.map_err(Trouble::io(path.display()))
    }

    pub(crate) async fn system_user(&self) -> Attempt<&str> {
        let name = self.system_user.get_or_try_init(|| async {
            // Asked the way PostgreSQL asks, through the system's name service.
            command::run(Path::new("id"), &["-un".as_ref()]).await
        });
        let name = name.await.map_err(|error| Trouble::failed(error.to_string()))?;
        Ok(name.trim())
    }
}

/// Make a directory that only its owner may enter; one that exists keeps its mode.
pub(crate) fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

pub(crate) async fn write_and_read_back(path: &Path, text: &str) -> Attempt<()> {
    durable::write(path, text).await.map_err(Trouble::io(path.display()))?;
    read_back(path, text)
}

async fn replace_and_read_back(path: &Path, text: &str) -> Attempt<()> {
    durable::replace(path, text).await.map_err(Trouble::io(path.display()))?;
    read_back(path, text)
}

fn read_back(path: &Path, text: &str) -> Attempt<()> {
    let read = std::fs::read_to_string(path).map_err(Trouble::io(path.display()))?;
    if read == text {
        Ok(())
    } else {
        Err(Trouble::failed(format!("{} does not read back as written", path.display())))
    }
}
