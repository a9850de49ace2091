//! `lab.json`: what a lab consists of and how far it is, for the commands that come after `up`.
//!
//! It is a help, not the truth about processes: `processes` finds those without it.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tier0_config::{SecretSource, Stack};
use tier0_core::words::Site;

use crate::account::Account;
use crate::files;
use crate::network::Network;
use crate::processes::Identity;

/// The version of the file's form. Any other is refused.
const VERSION: u32 = 1;

/// How far a lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `up` has begun and not ended.
    Starting,
    /// `up` ended well.
    Up,
}

/// The kinds of processes that the lab itself starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A Sentinel.
    Sentinel,
    /// An agent.
    Agent,
    /// The orchestrator.
    Orchestrator,
    /// A member of the etcd cluster that the orchestrators share.
    Store,
    /// A PgBouncer.
    Route,
    /// A region's router.
    Router,
    /// The reference backend.
    Telemetry,
    /// The links between sites that are namespaces.
    Links,
}

/// A process that the lab started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Its name within the lab.
    pub name: String,
    /// Where it runs.
    pub site: Site,
    /// What it is.
    pub kind: Kind,
    /// Which process it is.
    pub process: Identity,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its log.
    pub log: PathBuf,
    /// Where it keeps what must survive it.
    pub directory: PathBuf,
}

/// A lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    version: u32,
    /// Which instance it is.
    pub instance: u8,
    /// Where everything is.
    pub directory: PathBuf,
    /// The user id of its processes.
    pub uid: u32,
    /// The name of that user.
    pub user: String,
    /// How its sites are apart.
    #[serde(default)]
    pub network: Network,
    /// How far it is.
    pub phase: Phase,
    /// The API of the orchestrator that is asked first.
    pub api: String,
    /// The APIs of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_apis: Vec<String>,
    /// The stack file.
    pub stack_file: PathBuf,
    /// The file with the token that may operate.
    pub operate_token_file: PathBuf,
    /// The file with the token that may also accept loss.
    pub accept_loss_token_file: PathBuf,
    /// What the lab started. The data servers are the agents' business.
    pub started: Vec<Started>,
}

impl LabState {
    /// The state of a lab that is about to be started.
    pub fn new(
        instance: u8,
        directory: &Path,
        account: &Account,
        network: Network,
        stack: &Stack,
    ) -> Result<Self> {
        let orchestrator = stack.orchestrators.first().context("the stack has no orchestrator")?;
        let token_file = |from: &SecretSource| {
            from.file().map(Path::to_owned).context("the lab's tokens are in files")
        };
        Ok(LabState {
            version: VERSION,
            instance,
            directory: directory.to_owned(),
            uid: account.uid,
            user: account.name.clone(),
            network,
            phase: Phase::Starting,
            api: format!("http://{}", orchestrator.listen),
            more_apis: stack
                .orchestrators
                .iter()
                .skip(1)
                .map(|one| format!("http://{}", one.listen))
                .collect(),
            stack_file: directory.join("stack.toml"),
            operate_token_file: token_file(&orchestrator.operate_token_file)?,
            accept_loss_token_file: token_file(&orchestrator.accept_loss_token_file)?,
            started: Vec::new(),
        })
    }

    /// The APIs of its orchestrators, in the order in which they are asked.
    pub fn apis(&self) -> Vec<String> {
        std::iter::once(&self.api).chain(&self.more_apis).cloned().collect()
    }

    /// The file's path for a lab in `directory`.
    pub fn path(directory: &Path) -> PathBuf {
        directory.join("lab.json")
    }

    /// Read the state of the lab in `directory`; `None` where there is no lab.
    pub fn load(directory: &Path) -> Result<Option<LabState>> {
        let path = Self::path(directory);
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        // Below /tmp anybody can put a file that names other people's files and servers.
        let trusted = [0, Account::unprivileged()?.uid];
        if !metadata.is_file() || !trusted.contains(&metadata.uid()) {
            bail!("{} belongs to user id {}: it is not used", path.display(), metadata.uid());
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            bail!(
                "{} has version {}, this build knows {VERSION}: use the build that wrote it",
                path.display(),
                version.map_or("none".to_owned(), |version| version.to_string()),
            );
        }
        let state = serde_json::from_value(value)
            .with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(state))
    }

    /// Write the state.
    pub fn save(&self, account: &Account) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("serialise the lab's state")?;
        files::write_private(&Self::path(&self.directory), text.as_bytes(), account)
    }

    /// The stack's settings.
    pub fn stack(&self) -> Result<Stack> {
        Ok(Stack::load(&self.stack_file)?)
    }

    /// The command that removes this lab.
    pub fn removal(&self) -> String {
        removal(self.instance, &self.directory)
    }
}

/// The directory of an instance: as asked for, else from the environment, else below `/tmp`.
pub fn directory_of(instance: u8, asked: Option<&Path>) -> Result<PathBuf> {
    let chosen = match asked {
        Some(path) => path.to_owned(),
        None => std::env::var_os("TIER0_LAB_DIRECTORY")
            .map_or_else(|| default_directory(instance), PathBuf::from),
    };
    let absolute = std::path::absolute(&chosen).context("make the lab's directory absolute")?;
    // The kernel reports processes' directories without symbolic links.
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(absolute),
    }
}

/// The command that removes the lab of an instance in a directory.
pub fn removal(instance: u8, directory: &Path) -> String {
    let program = program();
    if directory == default_directory(instance) {
        format!("{program} lab down --instance {instance}")
    } else {
        format!("{program} lab down --directory {}", directory.display())
    }
}

/// This program as it was called, so that what is printed can be typed: a fresh clone's is not on
/// PATH.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.ends_with("/tier0") { called } else { "tier0".to_owned() }
}

fn default_directory(instance: u8) -> PathBuf {
    PathBuf::from(format!("/tmp/tier0-lab-{instance}"))
}

/// Where the running lab is that a command without further hints means.
pub fn discover() -> Result<Option<LabState>> {
    LabState::load(&directory_of(0, None)?)
}
