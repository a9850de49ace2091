//! The network of a lab: loopback addresses, or one network namespace per site with links between
//! them that the lab delays, thins out and cuts.
//!
//! Every packet between two sites, and between a site and the clients on the host, goes through one
//! process of the lab, [`forwarder`]; the kernel's netem is not used, because many kernels lack it.

pub mod control;
pub mod forwarder;
pub mod lane;
pub mod link;
pub mod namespaces;
mod packet;
pub mod shape;

use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::placement::Place;

/// How the sites of a lab are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// By their loopback addresses only.
    #[default]
    Loopback,
    /// Each in a network namespace of its own.
    Namespaces,
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The writer's home.
    Region1,
    /// The other region with data.
    Region2,
    /// The site without data.
    Witness,
    /// The host itself: operators, traffic and whatever else uses the stack from outside.
    Clients,
}

impl End {
    /// All of them.
    pub const ALL: [End; 4] = [End::Region1, End::Region2, End::Witness, End::Clients];
    /// Those that have a namespace of their own.
    pub const SITES: [End; 3] = [End::Region1, End::Region2, End::Witness];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            End::Region1 => Place::Region1.name(),
            End::Region2 => Place::Region2.name(),
            End::Witness => Place::Witness.name(),
            End::Clients => "clients",
        }
    }

    /// Its place among all of them.
    pub fn index(self) -> usize {
        match self {
            End::Region1 => 0,
            End::Region2 => 1,
            End::Witness => 2,
            End::Clients => 3,
        }
    }

    /// Its address in a lab of namespaces. The range is set aside for tests of networks (RFC 2544),
    /// so that it is nobody's; the lower half of it is left to programs that answer DNS with it.
    pub fn address(self, instance: u8) -> Ipv4Addr {
        let host = match self {
            End::Region1 => 1,
            End::Region2 => 2,
            End::Witness => 3,
            End::Clients => 254,
        };
        Ipv4Addr::new(198, 19, instance, host)
    }

    /// The end that has this address, in the lab of this instance.
    pub fn of_address(address: Ipv4Addr, instance: u8) -> Option<End> {
        End::ALL.into_iter().find(|end| end.address(instance) == address)
    }

    /// The name of its namespace; the clients are where the lab was started.
    pub fn namespace(self, instance: u8) -> Option<String> {
        match self {
            End::Clients => None,
            site => Some(format!("tier0-{instance}-{}", site.name())),
        }
    }

    /// The name of its network device. It has room for 15 bytes.
    pub fn device(self, instance: u8) -> String {
        format!("t0-{instance}-{}", self.name())
    }
}

impl From<Place> for End {
    fn from(place: Place) -> End {
        match place {
            Place::Region1 => End::Region1,
            Place::Region2 => End::Region2,
            Place::Witness => End::Witness,
        }
    }
}

impl FromStr for End {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<End> {
        match End::ALL.into_iter().find(|end| end.name() == text) {
            Some(end) => Ok(end),
            None => bail!("'{text}' is none of region1, region2, witness, clients"),
        }
    }
}

/// The addresses of a lab of namespaces, as a range.
pub fn range(instance: u8) -> String {
    format!("{}/24", Ipv4Addr::new(198, 19, instance, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_instances_share_no_name_and_no_address() {
        for end in End::ALL {
            assert!(end.device(200).len() <= 15, "{}", end.device(200));
            assert_ne!(end.device(1), end.device(2));
            assert_ne!(end.address(1), end.address(2));
            assert_eq!(End::of_address(end.address(7), 7), Some(end));
            assert_eq!(End::of_address(end.address(7), 8), None);
            assert_eq!(end.name().parse::<End>().unwrap(), end);
        }
        assert_eq!(End::Region1.namespace(3).as_deref(), Some("tier0-3-region1"));
    }
}
