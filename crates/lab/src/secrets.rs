//! Passwords and tokens of a lab: random, one per file, readable by their owner alone.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::account::Account;
use crate::files;

/// Where a lab keeps each secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFiles {
    /// With which roles authenticate to each other.
    pub role_token: PathBuf,
    /// That may operate.
    pub operate_token: PathBuf,
    /// That may also accept loss.
    pub accept_loss_token: PathBuf,
    /// With which standbys stream.
    pub replication_password: PathBuf,
    /// Of the application's PostgreSQL role.
    pub application_password: PathBuf,
    /// What PostgreSQL keeps of it, which lets its owner in as well.
    pub application_verifier: PathBuf,
    /// Of Redis.
    pub redis_password: PathBuf,
}

impl SecretFiles {
    /// The files of the lab in `directory`.
    pub fn below(directory: &Path) -> SecretFiles {
        let file = |name: &str| directory.join("secrets").join(name);
        SecretFiles {
            role_token: file("role-token"),
            operate_token: file("operate-token"),
            accept_loss_token: file("accept-loss-token"),
            replication_password: file("replication-password"),
            application_password: file("application-password"),
            application_verifier: file("application-verifier"),
            redis_password: file("redis-password"),
        }
    }

    /// Fill every file with a new random secret.
    pub fn create(&self, owner: &Account) -> Result<()> {
        let password = random_text()?;
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        for (path, secret) in [
            (&self.role_token, random_text()?),
            (&self.operate_token, random_text()?),
            (&self.accept_loss_token, random_text()?),
            (&self.replication_password, random_text()?),
            (&self.application_password, password),
            (&self.application_verifier, verifier),
            (&self.redis_password, random_text()?),
        ] {
            if let Some(parent) = path.parent() {
                files::create_directory(parent, owner)?;
            }
            files::write_private(path, format!("{secret}\n").as_bytes(), owner)?;
        }
        Ok(())
    }
}

/// 24 random bytes as 48 hexadecimal digits: safe unquoted in every configuration file.
pub fn random_text() -> Result<String> {
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
