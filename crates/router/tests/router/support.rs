//! A router for a test: its settings, a port that is free, and what is said where a machine has not what
//! it takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../../redis/tests/harness/address.rs"]
mod address;
#[path = "../../../lab/src/skipped.rs"]
mod counted;
pub use address::free_address;
pub use counted::skipped;

use tier0_config::{ProxyProtocol, RouteKind, RouteReads, RouteSettings};
use tier0_route::control::RouterState;

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

/// How the router is once it is as wanted; it has so long for that.
pub async fn seen(
    limit: Duration,
    look: impl AsyncFn() -> RouterState,
    wanted: impl Fn(&RouterState) -> bool,
) -> RouterState {
    let deadline = Instant::now() + limit;
    loop {
        let state = look().await;
        if wanted(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "{state:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
