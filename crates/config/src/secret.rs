//! Text that must not be printed: it has no readable `Debug`, no `Display` and no serialisation.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A password or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Where a secret is kept. The text `env:NAME` is an environment variable, `credential:NAME` a
/// systemd credential, anything else a file; a file of such a name is written `./env:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretSource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A file in the directory that systemd names in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Why a text does not say where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretSource {
    /// It says nothing.
    #[error("it is empty; give a file, env:NAME or credential:NAME")]
    Empty,
    /// The name cannot be one of a variable.
    #[error("after env: comes the name of a variable, of letters, digits and _")]
    Variable,
    /// The name cannot be one of a credential.
    #[error("after credential: comes the name of one file, without any /")]
    Credential,
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("read secret file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds nothing.
    #[error("secret {from} is empty")]
    Empty {
        /// Where it is.
        from: SecretSource,
    },
    /// Others may read it.
    #[error("secret file {path} may be read by others (mode {mode:o}): chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no such variable.
    #[error("the environment has no variable {name}, which should hold a secret")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// The variable is no text.
    #[error("the variable {name}, which should hold a secret, is not UTF-8")]
    NotText {
        /// The variable.
        name: String,
    },
    /// systemd gave no credentials.
    #[error(
        "credential {name} is wanted and $CREDENTIALS_DIRECTORY is not set: give the unit a \
         LoadCredential={name}:FILE"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
}

impl Secret {
    /// A secret from text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Read a secret from a file that only its owner may read; surrounding white space is cut.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        Secret::from_file_without(path, 0o077)
    }

    fn from_file_without(path: &Path, forbidden: u32) -> Result<Self, SecretError> {
        use std::os::unix::fs::PermissionsExt;
        let read = |source| SecretError::Read { path: path.to_owned(), source };
        let mode = std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
        if mode & forbidden != 0 {
            return Err(SecretError::Exposed { path: path.to_owned(), mode });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Secret::from_text(&text, || SecretSource::File(path.to_owned()))
    }

    fn from_text(text: &str, from: impl FnOnce() -> SecretSource) -> Result<Self, SecretError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty { from: from() });
        }
        Ok(Secret(text.to_owned()))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretSource {
    /// Read the secret.
    pub fn read(&self) -> Result<Secret, SecretError> {
        self.read_with(|name| std::env::var_os(name))
    }

    /// [`SecretSource::read`] in a given environment.
    pub fn read_with(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Secret, SecretError> {
        match self {
            SecretSource::File(path) => Secret::from_file(path),
            SecretSource::Environment(name) => {
                let value = variable(name)
                    .ok_or_else(|| SecretError::NoVariable { name: name.clone() })?
                    .into_string()
                    .map_err(|_| SecretError::NotText { name: name.clone() })?;
                Secret::from_text(&value, || self.clone())
            }
            SecretSource::Credential(name) => {
                let directory = variable("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials { name: name.clone() })?;
                // systemd lets the service's user in by an access control list, whose mask shows
                // as the group's bits; the directory itself is closed to everybody else.
                Secret::from_file_without(&Path::new(&directory).join(name), 0o007)
            }
        }
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            SecretSource::File(path) => Some(path),
            SecretSource::Environment(_) | SecretSource::Credential(_) => None,
        }
    }
}

impl FromStr for SecretSource {
    type Err = InvalidSecretSource;

    fn from_str(text: &str) -> Result<Self, InvalidSecretSource> {
        if let Some(name) = text.strip_prefix("env:") {
            let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let source = || SecretSource::Environment(name.to_owned());
            return named.then(source).ok_or(InvalidSecretSource::Variable);
        }
        if let Some(name) = text.strip_prefix("credential:") {
            let named = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
            let source = || SecretSource::Credential(name.to_owned());
            return named.then(source).ok_or(InvalidSecretSource::Credential);
        }
        if text.is_empty() {
            return Err(InvalidSecretSource::Empty);
        }
        Ok(SecretSource::File(text.into()))
    }
}

impl TryFrom<String> for SecretSource {
    type Error = InvalidSecretSource;

    fn try_from(text: String) -> Result<Self, InvalidSecretSource> {
        text.parse()
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => {
                let path = path.to_string_lossy();
                let taken = path.starts_with("env:") || path.starts_with("credential:");
                write!(f, "{}{path}", if taken { "./" } else { "" })
            }
            SecretSource::Environment(name) => write!(f, "env:{name}"),
            SecretSource::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

impl From<SecretSource> for String {
    fn from(source: SecretSource) -> String {
        source.to_string()
    }
}

impl From<PathBuf> for SecretSource {
    fn from(path: PathBuf) -> SecretSource {
        SecretSource::File(path)
    }
}
