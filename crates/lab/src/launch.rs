//! Starting one process of a lab: as its user, in a session of its own, with its own log, and
//! marked so that it can be found again.
//!
//! Nothing here waits for a process to be ready.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::account::Account;
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
    /// Where its output goes.
    pub log: PathBuf,
}

/// How the lab in one directory starts processes.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The lab's directory.
    pub directory: PathBuf,
    /// The user they run as.
    pub account: Account,
}

impl Launcher {
    /// Start a process that outlives us.
    pub fn start(&self, program: &Program) -> Result<Identity> {
        let name = program.path.display();
        // setsid(1) because the system call needs code between fork and exec, which safe Rust
        // does not offer. As our child leads no group, it executes the program in the same process.
        let child = self
            .prepare("setsid".as_ref(), &program.log)?
            .arg(&program.path)
            .args(&program.arguments)
            .envs(program.environment.iter().map(|(key, value)| (key, value)))
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = i32::try_from(child.id()).context("process number")?;
        processes::identify(pid).with_context(|| format!("{name} ended at once"))
    }

    /// A command that belongs to the lab but is waited for by the caller.
    pub fn prepare(&self, program: &Path, log: &Path) -> Result<Command> {
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        self.account.own(log)?;
        let mut command = self.account.command(program, &self.directory);
        command
            .env(MARK, &self.directory)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("share the log")?)
            .stderr(log_file);
        Ok(command)
    }
}
