//! What the adapter must know of its node, checked once; and where everything of the node lies.
//!
//! Leaves out reading the stack's configuration file: the caller hands over the parts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tier0_config::{NodeSettings, PostgresSettings, Secret};
use tier0_core::words::NodeId;

use crate::durable::beside;

/// PostgreSQL cuts names at this many bytes (`NAMEDATALEN` − 1), also `application_name`.
pub(crate) const LONGEST_NAME: usize = 63;

/// `sockaddr_un` holds 108 bytes; PostgreSQL adds `/.s.PGSQL.65535.lock` to the directory.
const LONGEST_SOCKET_DIRECTORY: usize = 85;

/// What the adapter must know of its node.
#[derive(Debug, Clone)]
pub struct PostgresNodeSettings {
    /// The node that this adapter looks after.
    pub node: NodeId,
    /// All nodes of the datastore, this one included.
    pub nodes: BTreeMap<NodeId, NodeSettings>,
    /// What all nodes have in common.
    pub postgres: PostgresSettings,
    /// The password with which standbys stream.
    pub replication_password: Secret,
    /// Where clients may come from once they are admitted.
    pub client_networks: Vec<ClientNetwork>,
    /// How long one look at the server may take, from connecting to the last byte.
    pub probe_limit: Duration,
    /// How often a position or state is looked at while an order waits for it.
    pub poll_interval: Duration,
    /// How long a standby that accepts connections may take to stream before the next rung of
    /// the ladder is tried.
    pub stream_limit: Duration,
}

impl PostgresNodeSettings {
    /// Settings with the usual limits: a look 300 ms, a poll each millisecond, 10 s to stream;
    /// clients from loopback only.
    pub fn new(
        node: NodeId,
        nodes: BTreeMap<NodeId, NodeSettings>,
        postgres: PostgresSettings,
        replication_password: Secret,
    ) -> Self {
        PostgresNodeSettings {
            node,
            nodes,
            postgres,
            replication_password,
            client_networks: vec![ClientNetwork::LOOPBACK],
            probe_limit: Duration::from_millis(300),
            poll_interval: Duration::from_millis(1),
            stream_limit: Duration::from_secs(10),
        }
    }
}

/// An address range that clients may come from, written `address/bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientNetwork {
    address: IpAddr,
    bits: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a network: expected an address, a slash and the number of bits")]
pub struct InvalidNetwork(pub String);

impl ClientNetwork {
    /// 127.0.0.0/8.
    pub const LOOPBACK: ClientNetwork =
        ClientNetwork { address: IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)), bits: 8 };

    /// The range from which `address` is reached: itself, or all of loopback, since there the
    /// sender's address is 127.0.0.1 whatever the receiver's is.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) if v4.is_loopback() => ClientNetwork::LOOPBACK,
            IpAddr::V4(_) => ClientNetwork { address, bits: 32 },
            IpAddr::V6(_) => ClientNetwork { address, bits: 128 },
        }
    }
}

impl std::fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for ClientNetwork {
    type Err = InvalidNetwork;
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.chars().take(60).collect());
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits: u8 = bits.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(invalid()) } else { Ok(ClientNetwork { address, bits }) }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The node is not among the nodes.
    #[error("{0} is not among the nodes of its own datastore")]
    NotAmongNodes(NodeId),
    /// The node has no archive directory.
    #[error("{0} has no archive_directory")]
    NoArchive(NodeId),
    /// A path is not absolute or has no parent.
    #[error("{what} of {node} must be an absolute path below another directory: {path}")]
    Path {
        /// Whose path.
        node: NodeId,
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The socket's path would not fit into an address.
    #[error(
        "socket directory {path} is {length} bytes long, at most {LONGEST_SOCKET_DIRECTORY} fit"
    )]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// PostgreSQL would cut a name that the protocol needs whole.
    #[error("'{name}' is {} bytes long; PostgreSQL cuts names at {LONGEST_NAME}", name.len())]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// A name has a control character, which no configuration file can hold.
    #[error("{what} has a control character")]
    ControlCharacter {
        /// Which name.
        what: &'static str,
    },
}

/// Where everything of one node lies. What must outlive the data directory lies beside it.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Directory of the Unix socket.
    pub(crate) socket: PathBuf,
    /// This node's part of the archive.
    pub(crate) archive: PathBuf,
    /// Server log.
    pub(crate) log: PathBuf,
    /// Password file for streaming.
    pub(crate) passfile: PathBuf,
    /// Which membership the data directory is (P3).
    pub(crate) member: PathBuf,
    /// There while a join is not proven (P1).
    pub(crate) joining: PathBuf,
    /// There while the primary is being ended where its standbys have everything.
    pub(crate) ending: PathBuf,
    /// There while `pg_rewind` may have left the data directory half changed.
    pub(crate) rewinding: PathBuf,
    /// There while the very first data directory is being made.
    pub(crate) initialising: PathBuf,
    /// What the operator's own configuration files said last (adopted servers).
    pub(crate) operators: PathBuf,
}

impl Paths {
    fn new(node: &NodeSettings, archive: PathBuf) -> Self {
        let data = node.data_directory.clone();
        let socket = match &node.adopted {
            Some(adopted) => adopted.socket_directory.clone(),
            None => data.parent().unwrap_or(Path::new("/")).join("socket"),
        };
        Paths {
            socket,
            archive,
            log: node.log_file.clone(),
            passfile: beside(&data, ".passfile"),
            member: beside(&data, ".member"),
            joining: beside(&data, ".joining"),
            ending: beside(&data, ".ending"),
            rewinding: beside(&data, ".rewinding"),
            initialising: beside(&data, ".initialising"),
            operators: beside(&data, ".operator"),
            data,
        }
    }
}

/// Checked settings.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) settings: PostgresNodeSettings,
    pub(crate) own: NodeSettings,
    pub(crate) paths: Paths,
}

impl Checked {
    pub(crate) fn new(settings: PostgresNodeSettings) -> Result<Self, SettingsError> {
        let own = settings
            .nodes
            .get(&settings.node)
            .cloned()
            .ok_or_else(|| SettingsError::NotAmongNodes(settings.node.clone()))?;
        for (id, node) in &settings.nodes {
            let archive = node
                .archive_directory
                .as_ref()
                .ok_or_else(|| SettingsError::NoArchive(id.clone()))?;
            let config = match &node.adopted {
                Some(adopted) => &adopted.config_directory,
                None => &node.data_directory,
            };
            for (what, path) in [
                ("data_directory", &node.data_directory),
                ("archive_directory", archive),
                ("log_file", &node.log_file),
                ("config_directory", config),
            ] {
                if !path.is_absolute() || path.parent().is_none() || path.to_str().is_none() {
                    return Err(SettingsError::Path { node: id.clone(), what, path: path.clone() });
                }
            }
            for name in [id.slot_name(), id.join_name()] {
                if name.len() > LONGEST_NAME {
                    return Err(SettingsError::NameTooLong { name });
                }
            }
        }
        for (what, name) in [
            ("admin_user", &settings.postgres.admin_user),
            ("replication_user", &settings.postgres.replication_user),
            ("database", &settings.postgres.database),
            ("application_user", &settings.postgres.application_user),
        ] {
            if name.len() > LONGEST_NAME {
                return Err(SettingsError::NameTooLong { name: name.clone() });
            }
            if name.chars().any(char::is_control) {
                return Err(SettingsError::ControlCharacter { what });
            }
        }
        let archive = own
            .archive_directory
            .clone()
            .ok_or_else(|| SettingsError::NoArchive(settings.node.clone()))?;
        let paths = Paths::new(&own, archive);
        let length = paths.socket.as_os_str().len();
        if length > LONGEST_SOCKET_DIRECTORY {
            return Err(SettingsError::SocketPath { path: paths.socket, length });
        }
        Ok(Checked { settings, own, paths })
    }

    /// The nodes other than this one.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&NodeId, &NodeSettings)> {
        self.settings.nodes.iter().filter(|(id, _)| **id != self.settings.node)
    }

    /// Where the server's configuration lies that is or becomes that of `data`.
    pub(crate) fn config_directory<'a>(&'a self, data: &'a Path) -> &'a Path {
        self.config_outside().unwrap_or(data)
    }

    /// Where the server's configuration lies, if that is not the data directory.
    pub(crate) fn config_outside(&self) -> Option<&Path> {
        let directory = self.own.adopted.as_ref()?.config_directory.as_path();
        (directory != self.paths.data).then_some(directory)
    }

    /// The path of one of PostgreSQL's programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.settings.postgres.bin_directory.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        assert_eq!("10.0.0.0/8".parse::<ClientNetwork>().unwrap().to_string(), "10.0.0.0/8");
        assert!("10.0.0.0/33".parse::<ClientNetwork>().is_err());
        assert!("all".parse::<ClientNetwork>().is_err());
        assert!("10.0.0.0/8 trust".parse::<ClientNetwork>().is_err());
        assert_eq!(ClientNetwork::of("127.0.2.1".parse().unwrap()), ClientNetwork::LOOPBACK);
    }
}
