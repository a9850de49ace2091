//! Where the parts of a lab are: which address and port each listens on.
//!
//! A site is a loopback address, `127.(10+instance).(site).1`, or a network namespace with an
//! address of its own, where every port is free. `launch.rs` starts processes where they belong.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use tier0_core::words::{Region, Site};

use crate::network::{self, End, Network};

/// How many ports are tried before a service is said to have no place.
const CANDIDATES: u16 = 4;
/// How far apart they are.
const DISTANCE: u16 = 10_000;

/// The three places of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The writer's home.
    Region1,
    /// The other region with data.
    Region2,
    /// The site without data.
    Witness,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 3] = [Place::Region1, Place::Region2, Place::Witness];
    /// Those that hold data.
    pub const REGIONS: [Place; 2] = [Place::Region1, Place::Region2];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Place::Region1 => "region1",
            Place::Region2 => "region2",
            Place::Witness => "witness",
        }
    }

    /// Its name as a site.
    pub fn site(self) -> Site {
        self.name().parse().expect("the names above follow the grammar")
    }

    /// Its name as a region.
    pub fn region(self) -> Region {
        self.name().parse().expect("the names above follow the grammar")
    }

    fn number(self) -> u8 {
        match self {
            Place::Region1 => 1,
            Place::Region2 => 2,
            Place::Witness => 3,
        }
    }
}

/// The addresses of one instance of the lab.
#[derive(Debug)]
pub struct Placement {
    instance: u8,
    network: Network,
    given: BTreeSet<SocketAddr>,
    moved: Vec<String>,
}

impl Placement {
    /// The placement of an instance.
    pub fn new(instance: u8, network: Network) -> Result<Placement> {
        if instance > 200 {
            bail!("instance {instance} has no address range: 0 to 200 have one");
        }
        Ok(Placement { instance, network, given: BTreeSet::new(), moved: Vec::new() })
    }

    /// The address of a place.
    pub fn address(&self, place: Place) -> IpAddr {
        IpAddr::V4(match self.network {
            Network::Loopback => Ipv4Addr::new(127, 10 + self.instance, place.number(), 1),
            Network::Namespaces => End::from(place).address(self.instance),
        })
    }

    /// From where clients come, as a range of addresses.
    pub fn clients(&self) -> String {
        match self.network {
            Network::Loopback => "127.0.0.0/8".to_owned(),
            Network::Namespaces => network::range(self.instance),
        }
    }

    /// Whether nobody listens there. In a namespace that is only just made nobody does.
    fn is_free(&self, address: SocketAddr) -> Result<bool> {
        match self.network {
            Network::Loopback => is_free(address),
            Network::Namespaces => Ok(true),
        }
    }

    /// A free address for a service: its standard port, or where another server has that (also on
    /// the wildcard address) the next candidate.
    pub fn choose(&mut self, place: Place, what: &str, port: u16) -> Result<SocketAddr> {
        let address = self.address(place);
        for attempt in 0..CANDIDATES {
            let Some(candidate) = port.checked_add(attempt * DISTANCE) else { break };
            let candidate = SocketAddr::new(address, candidate);
            if self.given.contains(&candidate) || !self.is_free(candidate)? {
                continue;
            }
            if attempt > 0 {
                self.moved.push(format!("{what}: {address}:{port} is taken, uses {candidate}"));
            }
            self.given.insert(candidate);
            return Ok(candidate);
        }
        bail!("{what}: {address}:{port} is taken, and so are the ports {DISTANCE} apart above it")
    }

    /// The plain loopback address that the first instance also listens on, where it is free.
    pub fn choose_also(&mut self, port: u16) -> Result<Vec<SocketAddr>> {
        let plain = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let meant = self.instance == 0 && self.network == Network::Loopback;
        if !meant || !is_free(plain)? || !self.given.insert(plain) {
            return Ok(Vec::new());
        }
        Ok(vec![plain])
    }

    /// One sentence for each service that could not have its standard port.
    pub fn moved(&self) -> &[String] {
        &self.moved
    }
}

fn is_free(address: SocketAddr) -> Result<bool> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error).with_context(|| format!("bind {address}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_server_on_the_wildcard_address_moves_the_service() {
        let foreign = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = foreign.local_addr().unwrap().port();
        let mut placement = Placement::new(199, Network::Loopback).unwrap();
        match placement.choose(Place::Region1, "test", port) {
            Ok(chosen) => {
                assert_ne!(chosen.port(), port);
                assert_eq!(placement.moved().len(), 1);
            }
            Err(error) => assert!(error.to_string().contains("is taken"), "{error}"),
        }
    }

    #[test]
    fn two_services_never_get_one_address() {
        let mut placement = Placement::new(198, Network::Loopback).unwrap();
        let first = placement.choose(Place::Region2, "a", 21_000).unwrap();
        let second = placement.choose(Place::Region2, "b", 21_000).unwrap();
        assert_ne!(first, second);
        assert_eq!(first.ip().to_string(), "127.208.2.1");
    }
}
