//! The unprivileged user that owns a lab and runs its servers, because PostgreSQL refuses root.
//!
//! Started by root the lab uses `postgres`, else `nobody`; started by anybody else it uses them.
//! It never creates a user.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A user that servers can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The numeric user id.
    pub uid: u32,
    /// The numeric group id.
    pub gid: u32,
}

impl Account {
    /// The user that the lab's servers run as when this process starts them.
    pub fn unprivileged() -> Result<Account> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Account::look_up(&uid.as_raw().to_string());
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Account::look_up(name).ok())
            .context("there is neither a user 'postgres' nor 'nobody' to run servers as")
    }

    fn look_up(key: &str) -> Result<Account> {
        let output = Command::new("getent").args(["passwd", key]).output().context("run getent")?;
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let fields: Vec<&str> = line.trim().split(':').collect();
        match fields.as_slice() {
            [name, _, uid, gid, ..] => Ok(Account {
                name: (*name).to_owned(),
                uid: uid.parse().context("user id")?,
                gid: gid.parse().context("group id")?,
            }),
            _ if rustix::process::geteuid().as_raw().to_string() == key => Ok(Account {
                // A container may run as a number without a name.
                name: key.to_owned(),
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            }),
            _ => bail!("no user '{key}'"),
        }
    }

    /// Whether this process already runs as this user.
    pub fn is_current(&self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid
    }

    /// A command that will run as this user, in `directory`, in plain English, without settings of
    /// the caller that PostgreSQL's programs would follow.
    pub fn command(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).env("LC_ALL", "C").env("HOME", directory);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(&name);
            }
        }
        if !self.is_current() {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Give a file or directory to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("give {} to {}", path.display(), self.name))
    }
}
