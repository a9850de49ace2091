//! Starting one process of a lab: at its site, as its user, in a session of its own, with its own
//! log, and marked so that it can be found again.
//!
//! Nothing here waits for a process to be ready.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::account::Account;
use crate::network::{End, Network, namespaces};
use crate::processes::{self, Identity, MARK};

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file to execute.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Extra variables.
    pub environment: Vec<(String, String)>,
    /// Where it runs.
    pub end: End,
    /// As whom.
    pub user: User,
    /// Where its output goes.
    pub log: PathBuf,
}

/// As whom a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// As the lab's user.
    Lab,
    /// As whoever starts the lab: root, for what makes network devices.
    Starter,
}

/// How the lab in one directory starts processes.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The lab's number.
    pub instance: u8,
    /// The lab's directory.
    pub directory: PathBuf,
    /// The user they run as.
    pub account: Account,
    /// How its sites are apart.
    pub network: Network,
}

impl Launcher {
    /// Start a process that outlives us.
    pub fn start(&self, program: &Program) -> Result<Identity> {
        let name = program.path.display();
        // setsid(1) because the system call needs code between fork and exec, which safe Rust
        // does not offer. As our child leads no group, it executes the program in the same process.
        let mut command = self.prepare("setsid".as_ref(), &program.log, program.user)?;
        command
            .arg(&program.path)
            .args(&program.arguments)
            .envs(program.environment.iter().map(|(key, value)| (key, value)));
        let spawned = self.at(program.end, || command.spawn())?;
        let child = spawned.with_context(|| format!("start {name}"))?;
        let pid = i32::try_from(child.id()).context("process number")?;
        processes::identify(pid).with_context(|| format!("{name} ended at once"))
    }

    /// Do something where processes of an end run.
    pub fn at<T: Send>(&self, end: End, act: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = match self.network {
            Network::Loopback => None,
            Network::Namespaces => end.namespace(self.instance),
        };
        namespaces::within(namespace.as_deref(), act)
    }

    /// A command that belongs to the lab but is started and waited for by the caller.
    pub fn prepare(&self, program: &Path, log: &Path, user: User) -> Result<Command> {
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        self.account.own(log)?;
        let mut command = match user {
            User::Lab => self.account.command(program, &self.directory),
            User::Starter => {
                let mut command = Command::new(program);
                command.current_dir("/");
                command
            }
        };
        command
            .env(MARK, &self.directory)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("share the log")?)
            .stderr(log_file);
        Ok(command)
    }
}
