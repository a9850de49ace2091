//! Names of things. One grammar for all: a lower-case letter, then up to 39 lower-case letters,
//! digits or single dashes. So every name is safe in a path, a slot name, an `application_name`,
//! a URL and a log line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid {kind}: {reason}")]
pub struct InvalidName {
    /// What the name was meant to be.
    pub kind: &'static str,
    /// The text as given, cut to 60 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let fail = |reason| Err(InvalidName { kind, text: text.chars().take(60).collect(), reason });
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > 40 {
        return fail("it is longer than 40 characters");
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return fail("it must start with a lower-case letter");
    }
    if !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return fail("only lower-case letters, digits and dashes are allowed");
    }
    if text.ends_with('-') || text.contains("--") {
        return fail("dashes stand single, between other characters");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($kind, text)?;
                Ok($type(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A failure domain that holds data nodes and clients.
    Region, "region"
);
name!(
    /// Any place that holds a voter: each region, and the witness.
    Site, "site"
);
name!(
    /// One PostgreSQL cluster or one Redis replication group.
    DatastoreName, "datastore"
);
name!(
    /// Everything that moves together.
    StackName, "stack"
);

/// One server process of a datastore in one region, written `datastore.region`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId {
    datastore: DatastoreName,
    region: Region,
}

impl NodeId {
    /// The node of `datastore` in `region`.
    pub fn new(datastore: DatastoreName, region: Region) -> Self {
        NodeId { datastore, region }
    }

    /// The datastore this node belongs to.
    pub fn datastore(&self) -> &DatastoreName {
        &self.datastore
    }

    /// The region this node is in.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The name of the physical replication slot that other nodes keep for this node: the node's
    /// name with every character that PostgreSQL does not allow in a slot name replaced by `_`.
    pub fn slot_name(&self) -> String {
        format!("tier0_{}_{}", self.datastore, self.region).replace('-', "_")
    }

    /// The name under which a standby streams while it is not in the takeover set.
    pub fn join_name(&self) -> String {
        format!("{self}-join")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.datastore, self.region))
    }
}

impl FromStr for NodeId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (datastore, region) = text.split_once('.').ok_or_else(|| InvalidName {
            kind: "node",
            text: text.chars().take(60).collect(),
            reason: "a node is written datastore.region",
        })?;
        Ok(NodeId { datastore: datastore.parse()?, region: region.parse()? })
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> String {
        node.to_string()
    }
}

/// The name of one membership in a takeover set, written `node#n`. It is what the primary waits
/// for and what only that standby may call itself; every join takes a new number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SyncName {
    node: NodeId,
    membership: u64,
}

impl SyncName {
    /// The membership with this number. Numbers come from the record alone.
    pub fn new(node: NodeId, membership: u64) -> Self {
        SyncName { node, membership }
    }

    /// A name that nobody ever has, since memberships are numbered from 1. Commits that wait for it
    /// wait until a standby joins, or an operator says that they go on.
    pub fn nobody(node: NodeId) -> Self {
        SyncName { node, membership: 0 }
    }

    /// Whether nobody ever has it.
    pub fn is_nobody(&self) -> bool {
        self.membership == 0
    }

    /// The value of `synchronous_standby_names` under which commits wait for exactly this name (P2).
    pub fn rule(&self) -> String {
        format!("FIRST 1 (\"{self}\")")
    }

    /// Whose membership it is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Its number.
    pub fn membership(&self) -> u64 {
        self.membership
    }
}

impl fmt::Display for SyncName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.membership)
    }
}

impl FromStr for SyncName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| InvalidName {
            kind: "sync name",
            text: text.chars().take(60).collect(),
            reason,
        };
        let (node, number) =
            text.split_once('#').ok_or_else(|| invalid("a sync name is written node#number"))?;
        let membership: u64 =
            number.parse().map_err(|_| invalid("the part after # is not a number"))?;
        if number != membership.to_string() {
            // PostgreSQL compares names as text: node#7 and node#07 are two.
            return Err(invalid("the part after # is not written as a plain number"));
        }
        Ok(SyncName { node: node.parse()?, membership })
    }
}

impl TryFrom<String> for SyncName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<SyncName> for String {
    fn from(name: SyncName) -> String {
        name.to_string()
    }
}

fn check_identifier(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let valid =
        (8..=40).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if valid {
        Ok(())
    } else {
        Err(InvalidName {
            kind,
            text: text.chars().take(60).collect(),
            reason: "it must be 8 to 40 hexadecimal digits and dashes",
        })
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check_identifier($kind, text)?;
                Ok($type(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

identifier!(
    /// One operation: a failover, switchover, failback, rejoin, join and so on.
    OperationId, "operation id"
);
identifier!(
    /// The unbroken history of one store of the authority record. A store that was lost and begun
    /// anew has another lineage, and agents refuse the old one for ever.
    Lineage, "lineage"
);
