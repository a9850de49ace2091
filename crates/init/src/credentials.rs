//! What the operator gives to look at the servers. Only the owner may read the file.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Deserializer};
use tier0_config::Secret;
use tier0_core::words::DatastoreName;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    #[serde(default)]
    postgres: BTreeMap<String, PostgresLogin>,
    #[serde(default)]
    redis: BTreeMap<String, RedisLogin>,
}

/// A superuser of one cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresLogin {
    /// The role.
    pub user: String,
    /// Its password, if it needs one.
    #[serde(default, deserialize_with = "secret")]
    pub password: Option<Secret>,
    /// The application's database.
    pub database: String,
    /// The application's role.
    pub application_user: String,
}

/// The password of one group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisLogin {
    /// Of the default user.
    #[serde(deserialize_with = "secret")]
    pub password: Option<Secret>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Some(Secret::new(String::deserialize(from)?)))
}

impl Credentials {
    /// Read the file.
    pub fn load(path: &Path) -> Result<Credentials> {
        let at = || format!("credentials {}", path.display());
        let mode = std::fs::metadata(path).with_context(at)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            bail!("{} may be read by others (mode {mode:o}): chmod 600 it", at());
        }
        let text = std::fs::read_to_string(path).with_context(at)?;
        // The parser's message would quote the line, which may hold a password.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            anyhow!("{}, line {line}: {}", at(), error.message())
        })
    }

    /// Of one cluster.
    pub fn postgres(&self, name: &DatastoreName) -> Result<&PostgresLogin> {
        let found = self.postgres.get(name.as_str());
        found.with_context(|| format!("the credentials have no [postgres.{name}]"))
    }

    /// Of one group.
    pub fn redis(&self, name: &DatastoreName) -> Result<&Secret> {
        let found = self.redis.get(name.as_str()).and_then(|login| login.password.as_ref());
        found.with_context(|| format!("the credentials have no [redis.{name}] password"))
    }
}
