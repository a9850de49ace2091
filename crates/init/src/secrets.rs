//! The files with secrets below the stack's directory: made once, never changed here.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use tier0_config::{Secret, Stack};
use tier0_core::words::DatastoreName;

use crate::credentials::Credentials;

/// Where each secret is.
pub struct SecretFiles {
    directory: PathBuf,
}

impl SecretFiles {
    /// Below a stack's directory.
    pub fn below(directory: &Path) -> SecretFiles {
        SecretFiles { directory: directory.join("secrets") }
    }

    /// One of them.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// How the stack file names one of them.
    pub fn source<T>(&self, name: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        Ok(self.file(name).display().to_string().parse()?)
    }

    /// The password with which standbys stream.
    pub fn replication_password(&self) -> Result<Secret> {
        Ok(Secret::from_file(&self.file(REPLICATION))?)
    }

    /// Make those that are not there.
    pub fn create(&self, credentials: &Credentials, stack: &Stack) -> Result<()> {
        for name in ["role-token", "operate-token", "accept-loss-token", REPLICATION] {
            create(&self.file(name), &random_text()?)?;
        }
        for datastore in stack.datastores.iter().filter(|one| one.redis.is_some()) {
            let password = credentials.redis(&datastore.name)?;
            create(&self.file(&redis_password(&datastore.name)), password.expose())?;
        }
        Ok(())
    }
}

const REPLICATION: &str = "replication-password";

/// The name of the file with a group's password.
pub fn redis_password(name: &DatastoreName) -> String {
    format!("redis-password-{name}")
}

/// 24 random bytes as 48 hexadecimal digits.
fn random_text() -> Result<String> {
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn create(path: &Path, text: &str) -> Result<()> {
    if path.exists() { Ok(()) } else { write_private(path, &format!("{text}\n")) }
}

/// Make a file that only its owner may read, with the directories above it.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let at = || format!("write {}", path.display());
    if let Some(parent) = path.parent() {
        make_private(parent)?;
    }
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o600).open(path).with_context(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(at)
}

/// Make a directory that only its owner may enter.
pub fn make_private(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make {}", path.display()))
}
