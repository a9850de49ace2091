//! Starting the members of a lab's etcd cluster, one per site, where several orchestrators share a
//! store.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use tier0_config::{Stack, StoreSettings};
use tier0_core::words::Site;

use crate::files;
use crate::launch::{Launcher, Program, User};
use crate::placement::{Place, Placement};
use crate::preflight::Programs;
use crate::state::{Kind, Started};

/// Half of etcd's defaults: the members of a lab are never far apart, and a region that dies with
/// the leader in it is not waited for longer than needed.
const HEARTBEAT_MS: u32 = 50;
const ELECTION_MS: u32 = 500;

/// How far above the port for clients that for the other members is, as by etcd's own defaults.
const PEER_PORT: u16 = 1;

/// The addresses of the members, in the order of [`sites`].
pub fn store(placement: &mut Placement) -> Result<StoreSettings> {
    let etcd = sites()
        .into_iter()
        .map(|place| {
            let address = placement.choose(place, &format!("etcd {}", place.name()), 2_379)?;
            placement.choose(
                place,
                &format!("etcd {} for its peers", place.name()),
                peer_port(address),
            )?;
            Ok(address)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(StoreSettings { etcd, user: None, password_file: None })
}

/// The order of orchestrators and members: the witness first, since losing the writer's region does
/// not take it away.
pub fn sites() -> [Place; 3] {
    [Place::Witness, Place::Region1, Place::Region2]
}

fn peer_port(member: SocketAddr) -> u16 {
    member.port() + PEER_PORT
}

fn name(place: Place) -> String {
    format!("etcd.{}", place.name())
}

/// Start them all, if the stack has a store that is shared.
pub fn start(stack: &Stack, launcher: &Launcher, programs: &Programs) -> Result<Vec<Started>> {
    if stack.store.is_none() {
        return Ok(Vec::new());
    }
    sites().into_iter().map(|place| start_one(stack, launcher, programs, &place.site())).collect()
}

/// Start the member of a site; also one that ran before, which keeps what it knew.
pub fn start_one(
    stack: &Stack,
    launcher: &Launcher,
    programs: &Programs,
    site: &Site,
) -> Result<Started> {
    let store = stack.store.as_ref().context("the stack has no store that is shared")?;
    let members: Vec<(Place, SocketAddr)> = sites().into_iter().zip(store.etcd.clone()).collect();
    let (place, address) = *members
        .iter()
        .find(|(place, _)| place.site() == *site)
        .with_context(|| format!("{site} has no member of etcd"))?;
    let program = programs.etcd.clone().context("etcd is missing: apt-get install etcd-server")?;
    let peer = |member: SocketAddr| format!("http://{}:{}", member.ip(), peer_port(member));
    let all: Vec<String> = members
        .iter()
        .map(|(place, member)| format!("{}={}", name(*place), peer(*member)))
        .collect();
    let directory = launcher.directory.join(place.name()).join("etcd");
    files::create_directory(&directory, &launcher.account)?;
    let log = launcher.directory.join("logs").join(format!("{}.log", name(place)));
    let process = launcher.start(&Program {
        path: program,
        arguments: arguments(place, &directory, address, &peer(address), &all.join(",")),
        environment: Vec::new(),
        end: site.as_str().parse()?,
        user: User::Lab,
        log: log.clone(),
    })?;
    Ok(Started {
        name: name(place),
        site: site.clone(),
        kind: Kind::Store,
        process,
        address,
        log,
        directory,
    })
}

fn arguments(
    place: Place,
    directory: &Path,
    address: SocketAddr,
    peer: &str,
    all: &str,
) -> Vec<std::ffi::OsString> {
    let client = format!("http://{address}");
    [
        ("--name", name(place)),
        ("--data-dir", directory.join("data").display().to_string()),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer.to_owned()),
        ("--initial-advertise-peer-urls", peer.to_owned()),
        ("--initial-cluster", all.to_owned()),
        ("--initial-cluster-state", "new".to_owned()),
        ("--heartbeat-interval", HEARTBEAT_MS.to_string()),
        ("--election-timeout", ELECTION_MS.to_string()),
        ("--logger", "zap".to_owned()),
        ("--log-level", "warn".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.into(), value.into()])
    .collect()
}
