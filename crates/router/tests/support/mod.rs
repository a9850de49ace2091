//! A router for a test: its settings, and a port that is free.

use std::collections::BTreeMap;
use std::path::Path;

#[path = "../../../redis/tests/harness/address.rs"]
mod address;
pub use address::free_address;

use tier0_config::{ProxyProtocol, RouteKind, RouteReads, RouteSettings};

/// A router of the first region with both ports, and its files in this directory.
pub fn settings(directory: &Path) -> RouteSettings {
    RouteSettings {
        name: "port".parse().unwrap(),
        region: "region1".parse().unwrap(),
        kind: RouteKind::Proxy,
        datastore: "main".parse().unwrap(),
        address: free_address(),
        read_address: Some(free_address()),
        socket_directory: directory.to_owned(),
        admin_user: String::new(),
        reads: RouteReads::Bounded,
        pointer_file: directory.join("pointer"),
        proxy_protocol: ProxyProtocol::Off,
        fronts: BTreeMap::new(),
    }
}
