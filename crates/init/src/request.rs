//! The arguments: which servers there are and where.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Args;
use tier0_core::words::{DatastoreName, Region, Site, StackName};

/// Look at servers that run already and say what tier0 needs of them.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The stack's name
    #[arg(long, default_value = "stack")]
    pub name: StackName,
    /// A PostgreSQL cluster: NAME=REGION:HOST:PORT,REGION:HOST:PORT
    #[arg(long, value_name = "NAME=NODES")]
    pub postgres: Vec<NamedNodes>,
    /// A Redis replication group: NAME=REGION:HOST:PORT,REGION:HOST:PORT
    #[arg(long, value_name = "NAME=NODES")]
    pub redis: Vec<NamedNodes>,
    /// A Sentinel: SITE:HOST:PORT
    #[arg(long, value_name = "SITE:HOST:PORT", value_delimiter = ',')]
    pub sentinel: Vec<PlacedAddress>,
    /// Where the agent of a region will listen; without this at its node's address, port 8004
    #[arg(long, value_name = "REGION:HOST:PORT", value_delimiter = ',')]
    pub agent: Vec<PlacedAddress>,
    /// Where the orchestrator will listen
    #[arg(long, value_name = "SITE:HOST:PORT", default_value = "witness:127.0.0.1:8003")]
    pub orchestrator: PlacedAddress,
    /// A TOML file, mode 0600, with [postgres.NAME] user, password, database, application_user
    /// and [redis.NAME] password
    #[arg(long, value_name = "FILE")]
    pub credentials: PathBuf,
    /// Where stack.toml, the secrets and the roles' state are; a stack.toml that is there is used
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/tier0")]
    pub directory: PathBuf,
    /// Where systemd's units are looked for
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/systemd/system", hide = true)]
    pub units: PathBuf,
    /// Do what can be done while the servers run
    #[arg(long)]
    pub apply: bool,
    /// Do it without asking; --apply alone only prints
    #[arg(long, requires = "apply")]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    /// Only looked.
    No,
    /// Asked for, and not confirmed.
    NotConfirmed,
    /// Asked for and confirmed.
    Now,
}

impl InitArgs {
    /// Whether anything is changed.
    pub fn apply(&self) -> Apply {
        match (self.apply, self.yes) {
            (false, _) => Apply::No,
            (true, false) => Apply::NotConfirmed,
            (true, true) => Apply::Now,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.postgres.is_empty() && self.redis.is_empty() {
            bail!("name at least one --postgres or --redis");
        }
        if !self.directory.is_absolute() {
            bail!("--directory must be absolute, it is {}", self.directory.display());
        }
        Ok(())
    }
}

/// A datastore's name and its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedNodes {
    /// The name.
    pub name: DatastoreName,
    /// Region and address of each.
    pub nodes: Vec<(Region, SocketAddr)>,
}

impl FromStr for NamedNodes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is not NAME=REGION:HOST:PORT,REGION:HOST:PORT");
        let (name, nodes) = text.split_once('=').ok_or_else(form)?;
        let name = name.parse().map_err(|error| format!("{name}: {error}"))?;
        let nodes = nodes
            .split(',')
            .map(|node| {
                let PlacedAddress { site, address } = node.parse()?;
                let region = site.as_str().parse().map_err(|error| format!("{site}: {error}"))?;
                Ok((region, address))
            })
            .collect::<Result<Vec<_>, String>>()?;
        match nodes.as_slice() {
            [(one, _), (other, _)] if one != other => Ok(NamedNodes { name, nodes }),
            _ => Err(format!("{name} needs one node in each of two regions: {}", form())),
        }
    }
}

/// Something at a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedAddress {
    /// The site, or region.
    pub site: Site,
    /// Its address.
    pub address: SocketAddr,
}

impl FromStr for PlacedAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (site, address) =
            text.split_once(':').ok_or_else(|| format!("'{text}' is not SITE:HOST:PORT"))?;
        let site = site.parse().map_err(|error| format!("{site}: {error}"))?;
        // A name is looked up once: the stack file holds addresses, so that no name service is
        // needed at 3 a.m.
        let address = address
            .to_socket_addrs()
            .map_err(|error| format!("{address}: {error}"))?
            .next()
            .ok_or_else(|| format!("{address} has no address"))?;
        Ok(PlacedAddress { site, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read() {
        let read: NamedNodes = "main=a:127.0.0.1:5432,b:127.0.0.2:5433".parse().unwrap();
        assert_eq!(read.name.to_string(), "main");
        assert_eq!(read.nodes[1].1, "127.0.0.2:5433".parse().unwrap());
        for wrong in ["main", "main=a:127.0.0.1:1", "main=a:127.0.0.1:1,a:127.0.0.2:1", "m=a:x"] {
            assert!(wrong.parse::<NamedNodes>().is_err(), "{wrong}");
        }
    }
}
