//! What settings must agree on, which no single value shows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use tier0_core::record::DatastoreKind;
use tier0_core::words::Region;

use crate::settings::{
    DatastoreSettings, ProxyProtocol, RouteKind, RouteReads, RouteSettings, Stack,
};

/// A relation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The settings to point at, by indexed path.
    pub at: Vec<String>,
    /// Everything that was looked at.
    pub depends: Vec<String>,
    /// What does not hold, with both values.
    pub sentence: String,
}

impl Broken {
    /// A relation between the settings that are pointed at.
    fn between<const N: usize>(at: [String; N], sentence: String) -> Broken {
        Broken { depends: at.to_vec(), at: at.to_vec(), sentence }
    }

    /// One that more was looked at for.
    fn with(mut self, depends: impl IntoIterator<Item = String>) -> Broken {
        self.depends.extend(depends);
        self
    }
}

/// Parameters that hold a password, which has a setting of its own.
const REDIS_PASSWORDS: &[&str] = &["requirepass", "masterauth"];
const POSTGRES_PASSWORDS: &[&str] = &["primary_conninfo"];

/// Every relation that does not hold.
pub(crate) fn broken(stack: &Stack) -> Vec<Broken> {
    let mut found = Vec::new();
    roles(stack, &mut found);
    datastores(stack, &mut found);
    routes(stack, &mut found);
    backends(stack, &mut found);
    limits(stack, &mut found);
    addresses(stack, &mut found);
    data_directories(stack, &mut found);
    found
}

fn roles(stack: &Stack, found: &mut Vec<Broken>) {
    let regions = &stack.stack.regions;
    let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
    if regions.len() != 2 || regions[0] == regions[1] {
        found.push(Broken::between(
            ["stack.regions".to_owned()],
            format!(
                "stack.regions must name two different regions, it names [{}]",
                names.join(", ")
            ),
        ));
    }
    orchestrators(stack, found);
    let agents: Vec<&Region> = stack.agents.iter().map(|agent| &agent.region).collect();
    one_per_region(regions, &agents, "agent", "[[agent]]", found);
}

/// One of them keeps the record itself; several share a store, and an odd number of them has a
/// majority when one site is lost.
fn orchestrators(stack: &Stack, found: &mut Vec<Broken>) {
    let number = stack.orchestrators.len();
    if number == 0 {
        let sentence = "at least one [[orchestrator]] is needed".to_owned();
        found.push(Broken::between(["orchestrator".to_owned()], sentence));
    } else if number.is_multiple_of(2) {
        let sentence = format!(
            "the number of [[orchestrator]] must be odd, the file has {number}: half of an even \
             number is no majority"
        );
        found.push(Broken::between([format!("orchestrator[{}]", number - 1)], sentence));
    } else if number > 1 && stack.store.is_none() {
        let sentence = format!(
            "{number} orchestrators need a store that they share: a [store] with the addresses of \
             an etcd cluster"
        );
        found.push(Broken::between(["orchestrator[1]".to_owned(), "store".to_owned()], sentence));
    }
    for (at, one) in stack.orchestrators.iter().enumerate() {
        if let Some(before) =
            stack.orchestrators[..at].iter().position(|other| other.site == one.site)
        {
            let sentence = format!("two orchestrators are at site {}", one.site);
            let pointed =
                [format!("orchestrator[{at}].site"), format!("orchestrator[{before}].site")];
            found.push(Broken::between(pointed, sentence));
        }
    }
    let Some(store) = &stack.store else { return };
    if store.etcd.is_empty() {
        let sentence = "store.etcd must name at least one member of the cluster".to_owned();
        found.push(Broken::between(["store.etcd".to_owned()], sentence));
    }
    if store.user.is_some() != store.password_file.is_some() {
        let sentence = "store.user and store.password_file are only there together".to_owned();
        let pointed = ["store.user".to_owned(), "store.password_file".to_owned()];
        found.push(Broken::between(pointed, sentence));
    }
}

/// Each region has one of something, and nothing is in any other region.
fn one_per_region(
    regions: &[Region],
    have: &[&Region],
    path: &str,
    what: &str,
    found: &mut Vec<Broken>,
) {
    let at = |index: usize| format!("{path}[{index}].region");
    let looked_at = || {
        std::iter::once("stack.regions".to_owned())
            .chain(std::iter::once(path.to_owned()))
            .chain((0..have.len()).map(at))
            .collect::<Vec<_>>()
    };
    for (index, region) in regions.iter().enumerate() {
        if regions[..index].contains(region) {
            continue;
        }
        let mine: Vec<usize> =
            have.iter().enumerate().filter(|(_, of)| **of == region).map(|(at, _)| at).collect();
        if mine.len() != 1 {
            let sentence = format!("region {region} needs one {what}, it has {}", mine.len());
            let at = if mine.is_empty() {
                vec!["stack.regions".to_owned()]
            } else {
                mine.into_iter().map(at).collect()
            };
            found.push(Broken { at, depends: looked_at(), sentence });
        }
    }
    for (index, region) in have.iter().enumerate() {
        if !regions.contains(region) {
            let sentence = format!("{what} is for region {region}, which stack.regions lacks");
            let pointed = [at(index), "stack.regions".to_owned()];
            found.push(Broken::between(pointed, sentence));
        }
    }
}

fn datastores(stack: &Stack, found: &mut Vec<Broken>) {
    if stack.datastores.is_empty() {
        found.push(Broken::between(
            ["datastore".to_owned()],
            "at least one [[datastore]] is needed".to_owned(),
        ));
    }
    for (index, datastore) in stack.datastores.iter().enumerate() {
        let path = format!("datastore[{index}]");
        let same = |other: &DatastoreSettings| other.name == datastore.name;
        if let Some(other) = stack.datastores[..index].iter().position(same) {
            found.push(Broken::between(
                [format!("{path}.name"), format!("datastore[{other}].name")],
                format!("datastore {} is named twice", datastore.name),
            ));
        }
        let regions: Vec<&Region> = datastore.nodes.iter().map(|node| &node.region).collect();
        let (what, below) =
            (format!("[[datastore.node]] of datastore {}", datastore.name), format!("{path}.node"));
        one_per_region(&stack.stack.regions, &regions, &below, &what, found);
        kind(datastore, &path, found);
        passwords(datastore, &path, found);
        sentinels(datastore, &path, found);
    }
}

/// A datastore has what its kind needs, and nothing of the other kind.
fn kind(datastore: &DatastoreSettings, path: &str, found: &mut Vec<Broken>) {
    let name = &datastore.name;
    let (own, other, foreign) = match datastore.kind {
        DatastoreKind::Postgres => {
            (datastore.postgres.is_some(), "redis", datastore.redis.is_some())
        }
        DatastoreKind::Redis => {
            (datastore.redis.is_some(), "postgres", datastore.postgres.is_some())
        }
    };
    let kind = datastore.kind;
    if !own {
        found.push(
            Broken::between(
                [format!("{path}.kind")],
                format!("datastore {name} is of kind {kind} and lacks [datastore.{kind}]"),
            )
            .with([format!("{path}.{kind}")]),
        );
    }
    if foreign {
        found.push(Broken::between(
            [format!("{path}.{other}"), format!("{path}.kind")],
            format!("datastore {name} is of kind {kind}, [datastore.{other}] is not for it"),
        ));
    }
    for (index, node) in datastore.nodes.iter().enumerate() {
        if kind == DatastoreKind::Postgres && node.archive_directory.is_none() {
            let below = format!("{path}.node[{index}]");
            found.push(
                Broken::between(
                    [below.clone()],
                    format!("node {name}.{} lacks archive_directory", node.region),
                )
                .with([format!("{below}.archive_directory"), format!("{path}.kind")]),
            );
        }
        if kind == DatastoreKind::Redis && node.adopted.is_some() {
            found.push(Broken::between(
                [format!("{path}.node[{index}].adopted"), format!("{path}.kind")],
                format!(
                    "node {name}.{} is Redis, [datastore.node.adopted] is not for it",
                    node.region
                ),
            ));
        }
    }
}

fn passwords(datastore: &DatastoreSettings, path: &str, found: &mut Vec<Broken>) {
    let mut refuse = |kind: &str, parameter: &str, instead: &str| {
        found.push(Broken::between(
            [format!("{path}.{kind}.parameters.{parameter}")],
            format!("datastore.{kind}.parameters.{parameter} holds a password: use {instead}"),
        ));
    };
    for parameter in REDIS_PASSWORDS {
        if datastore.redis.as_ref().is_some_and(|redis| redis.parameters.contains_key(*parameter)) {
            refuse("redis", parameter, "password_file");
        }
    }
    for parameter in POSTGRES_PASSWORDS {
        let postgres = datastore.postgres.as_ref();
        if postgres.is_some_and(|postgres| postgres.parameters.contains_key(*parameter)) {
            refuse("postgres", parameter, "replication_password_file");
        }
    }
}

fn sentinels(datastore: &DatastoreSettings, path: &str, found: &mut Vec<Broken>) {
    let Some(redis) = &datastore.redis else { return };
    for (index, sentinel) in redis.sentinels.iter().enumerate() {
        let same = |other: &crate::SentinelSettings| other.address == sentinel.address;
        if let Some(other) = redis.sentinels[..index].iter().position(same) {
            let at = |index: usize| format!("{path}.redis.sentinel[{index}].address");
            found.push(Broken::between(
                [at(index), at(other)],
                format!(
                    "two Sentinels of {} have the address {}",
                    datastore.name, sentinel.address
                ),
            ));
        }
    }
}

fn routes(stack: &Stack, found: &mut Vec<Broken>) {
    for (index, route) in stack.routes.iter().enumerate() {
        let at = |key: &str| format!("route[{index}].{key}");
        let id = route.id();
        if !stack.stack.regions.contains(&route.region) {
            found.push(Broken::between(
                [at("region"), "stack.regions".to_owned()],
                format!("region {} of route {id} is not in stack.regions", route.region),
            ));
        }
        if let Some(other) = stack.routes[..index].iter().position(|other| other.id() == id) {
            found.push(
                Broken::between(
                    [at("name"), format!("route[{other}].name")],
                    format!("route {id} is there twice"),
                )
                .with([at("region"), format!("route[{other}].region")]),
            );
        }
        if route.reads == RouteReads::Strict && route.kind != RouteKind::Proxy {
            found.push(Broken::between(
                [at("reads"), at("kind")],
                format!("route {id}: only a route of kind proxy can check a lease (strict reads)"),
            ));
        }
        if route.read_address.is_some() && route.kind != RouteKind::Proxy {
            found.push(only_of_a_proxy(route, &at, "read_address", "a read port"));
        }
        fronts(stack, route, &at, found);
        let same = |datastore: &DatastoreSettings| datastore.name == route.name;
        if let Some(other) = stack.datastores.iter().position(same) {
            found.push(Broken::between(
                [at("name"), format!("datastore[{other}].name")],
                format!("route {id} has the name of a datastore"),
            ));
        }
        let plain =
            |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        let served = |datastore: &DatastoreSettings| datastore.name == route.datastore;
        if let Some(of) = stack.datastores.iter().position(served)
            && let Some(postgres) = &stack.datastores[of].postgres
            && route.kind == RouteKind::Pgbouncer
            && !plain(&postgres.database)
        {
            found.push(Broken::between(
                [at("datastore"), format!("datastore[{of}].postgres.database")],
                format!(
                    "route {id}: PgBouncer cannot name the database '{}'; letters, digits, _ . - \
                     are what it reads",
                    postgres.database
                ),
            ));
        }
        let serves = stack.datastore(&route.datastore).map(|datastore| datastore.kind);
        let (fits, wanted) = match route.kind {
            RouteKind::Pgbouncer => {
                (serves == Some(DatastoreKind::Postgres), " of kind PostgreSQL")
            }
            RouteKind::Haproxy | RouteKind::Proxy => (serves.is_some(), ""),
        };
        if !fits {
            let looked_at = (0..stack.datastores.len())
                .flat_map(|at| ["name", "kind"].map(|key| format!("datastore[{at}].{key}")));
            let name = &route.datastore;
            found.push(
                Broken::between(
                    [at("datastore")],
                    format!("route {id}: there is no datastore {name}{wanted}"),
                )
                .with(looked_at)
                .with(["datastore".to_owned()]),
            );
        }
    }
}

/// A setting of the built-in router, set on a route of another kind.
fn only_of_a_proxy(
    route: &RouteSettings,
    at: &impl Fn(&str) -> String,
    key: &str,
    what: &str,
) -> Broken {
    let sentence = format!("route {}: only a route of kind proxy has {what}", route.id());
    Broken::between([at(key), at("kind")], sentence)
}

/// Only what understands the header of the PROXY protocol is sent one.
fn fronts(
    stack: &Stack,
    route: &RouteSettings,
    at: &impl Fn(&str) -> String,
    found: &mut Vec<Broken>,
) {
    let id = route.id();
    if !route.fronts.is_empty() && route.kind != RouteKind::Proxy {
        found.push(only_of_a_proxy(route, at, "fronts", "fronts"));
    }
    for (region, address) in &route.fronts {
        if !stack.stack.regions.contains(region) {
            found.push(Broken::between(
                [at("fronts"), "stack.regions".to_owned()],
                format!("route {id} has a front in {region}, which is not in stack.regions"),
            ));
        }
        let twice = route.fronts.iter().find(|(other, at)| *other < region && *at == address);
        if let Some((other, _)) = twice {
            found.push(Broken::between(
                [at("fronts")],
                format!("route {id}: {other} and {region} have one front, {address}"),
            ));
        }
        let leads =
            |one: &RouteSettings| one.address == *address || one.read_address == Some(*address);
        if let Some(other) = stack.routes.iter().position(leads) {
            let path = ["address", "read_address"].map(|key| format!("route[{other}].{key}"));
            found.push(
                Broken::between(
                    [at("fronts")],
                    format!(
                        "route {id}: its front in {region} is a port of route {}, {address}",
                        stack.routes[other].id()
                    ),
                )
                .with(path),
            );
        }
        for (of, datastore) in stack.datastores.iter().enumerate() {
            let own = datastore.nodes.iter().position(|node| node.address == *address);
            if let Some(node) = own {
                found.push(Broken::between(
                    [at("fronts"), format!("datastore[{of}].node[{node}].address")],
                    format!(
                        "route {id}: its front in {region} has the address of node {}.{} itself, \
                         {address}",
                        datastore.name, datastore.nodes[node].region
                    ),
                ));
            }
        }
    }
    if route.proxy_protocol == ProxyProtocol::Off {
        return;
    }
    if route.kind != RouteKind::Proxy {
        found.push(only_of_a_proxy(
            route,
            at,
            "proxy_protocol",
            "a setting for the PROXY protocol",
        ));
    } else if let Some(region) =
        stack.stack.regions.iter().find(|region| !route.fronts.contains_key(*region))
    {
        found.push(
            Broken::between(
                [at("proxy_protocol")],
                format!(
                    "route {id} would send the header of the PROXY protocol to node {}.{region} \
                     itself, and neither PostgreSQL nor Redis understands it: fronts must say what \
                     stands before it",
                    route.datastore
                ),
            )
            .with([at("fronts"), "stack.regions".to_owned()]),
        );
    }
}

fn backends(stack: &Stack, found: &mut Vec<Broken>) {
    for (index, backend) in stack.telemetry.iter().enumerate() {
        let at = |key: &str| format!("telemetry[{index}].{key}");
        if !stack.stack.regions.contains(&backend.region) {
            found.push(Broken::between(
                [at("region"), "stack.regions".to_owned()],
                format!("region {} of telemetry is not in stack.regions", backend.region),
            ));
        }
        for (key, name, kind) in [
            ("postgres", &backend.postgres, DatastoreKind::Postgres),
            ("redis", &backend.redis, DatastoreKind::Redis),
        ] {
            if stack.datastore(name).is_none_or(|datastore| datastore.kind != kind) {
                let looked_at = (0..stack.datastores.len())
                    .flat_map(|at| ["name", "kind"].map(|key| format!("datastore[{at}].{key}")));
                found.push(
                    Broken::between(
                        [at(key)],
                        format!("telemetry.{key}: there is no datastore {name} of kind {kind}"),
                    )
                    .with(looked_at)
                    .with(["datastore".to_owned()]),
                );
            }
        }
    }
}

fn limits(stack: &Stack, found: &mut Vec<Broken>) {
    let limits = &stack.limits;
    let at = |name: &str| format!("limits.{name}");
    if limits.cooperation_ms < limits.poll_interval_ms {
        found.push(Broken::between(
            [at("cooperation_ms"), at("poll_interval_ms")],
            format!(
                "limits.cooperation_ms = {} must not be below limits.poll_interval_ms = {}: a \
                 healthy agent may take that long to be heard",
                limits.cooperation_ms, limits.poll_interval_ms
            ),
        ));
    }
    if limits.drain_ms >= limits.hold_ms {
        found.push(Broken::between(
            [at("drain_ms"), at("hold_ms")],
            format!(
                "limits.drain_ms = {} must be below limits.hold_ms = {}: clients are held while \
                 open transactions are waited for",
                limits.drain_ms, limits.hold_ms
            ),
        ));
    }
    if limits.lease_ms > limits.silence_ms {
        found.push(Broken::between(
            [at("lease_ms"), at("silence_ms")],
            format!(
                "limits.lease_ms = {} must not be above limits.silence_ms = {}: a region that is \
                 silent for that long serves nobody any more",
                limits.lease_ms, limits.silence_ms
            ),
        ));
    }
    if limits.lease_ms < limits.poll_interval_ms.saturating_mul(3) {
        found.push(Broken::between(
            [at("lease_ms"), at("poll_interval_ms")],
            format!(
                "limits.lease_ms = {} must be at least three times limits.poll_interval_ms = {}: \
                 each poll renews it",
                limits.lease_ms, limits.poll_interval_ms
            ),
        ));
    }
    if limits.silence_ms < limits.poll_interval_ms.saturating_mul(2) {
        found.push(Broken::between(
            [at("silence_ms"), at("poll_interval_ms")],
            format!(
                "limits.silence_ms = {} must be at least twice limits.poll_interval_ms = {}: one \
                 late answer is not silence",
                limits.silence_ms, limits.poll_interval_ms
            ),
        ));
    }
    for (index, datastore) in stack.datastores.iter().enumerate() {
        let Some(redis) = &datastore.redis else { continue };
        if limits.pause_ms.saturating_mul(2) > redis.down_after_ms {
            found.push(Broken::between(
                [at("pause_ms"), format!("datastore[{index}].redis.down_after_ms")],
                format!(
                    "limits.pause_ms = {} must be at most half of down_after_ms = {} of datastore \
                     {}: a longer pause looks like a dead master",
                    limits.pause_ms, redis.down_after_ms, datastore.name
                ),
            ));
        }
    }
}

fn addresses(stack: &Stack, found: &mut Vec<Broken>) {
    let mut all: Vec<(SocketAddr, String, String)> = Vec::new();
    for (at, one) in stack.orchestrators.iter().enumerate() {
        let (what, path) = (format!("orchestrator {}", one.site), format!("orchestrator[{at}]"));
        all.push((one.listen, what.clone(), format!("{path}.listen")));
        all.extend(
            one.also_listen.iter().map(|also| (*also, what.clone(), format!("{path}.also_listen"))),
        );
    }
    for (at, member) in stack.store.iter().flat_map(|store| &store.etcd).enumerate() {
        all.push((*member, format!("etcd member {}", at + 1), "store.etcd".to_owned()));
    }
    for (at, one) in stack.agents.iter().enumerate() {
        all.push((one.listen, format!("agent {}", one.region), format!("agent[{at}].listen")));
    }
    for (at, datastore) in stack.datastores.iter().enumerate() {
        for (below, node) in datastore.nodes.iter().enumerate() {
            let what = format!("node {}.{}", datastore.name, node.region);
            all.push((node.address, what, format!("datastore[{at}].node[{below}].address")));
        }
    }
    for (at, one) in stack.routes.iter().enumerate() {
        all.push((one.address, format!("route {}", one.id()), format!("route[{at}].address")));
        if let Some(read) = one.read_address {
            let (what, path) = (one.id(), format!("route[{at}].read_address"));
            all.push((read, format!("the read port of route {what}"), path));
        }
    }
    for (at, one) in stack.telemetry.iter().enumerate() {
        let what = format!("telemetry {}", one.region);
        all.push((one.listen, what, format!("telemetry[{at}].listen")));
    }
    let mut taken: BTreeMap<SocketAddr, (String, String)> = BTreeMap::new();
    for (address, what, path) in all {
        if let Some((other, other_path)) = taken.get(&address) {
            found.push(Broken::between(
                [path, other_path.clone()],
                format!("{what} and {other} both have the address {address}"),
            ));
        } else {
            taken.insert(address, (what, path));
        }
    }
}

/// Two servers with one data directory would destroy it.
fn data_directories(stack: &Stack, found: &mut Vec<Broken>) {
    let mut taken: BTreeMap<(&Region, &Path), (String, String)> = BTreeMap::new();
    for (at, datastore) in stack.datastores.iter().enumerate() {
        for (below, node) in datastore.nodes.iter().enumerate() {
            let what = format!("{}.{}", datastore.name, node.region);
            let path = format!("datastore[{at}].node[{below}].data_directory");
            let key = (&node.region, node.data_directory.as_path());
            if let Some((other, other_path)) = taken.get(&key) {
                let directory = node.data_directory.display();
                found.push(
                    Broken::between(
                        [path, other_path.clone()],
                        format!(
                            "nodes {what} and {other} both have the data directory {directory}"
                        ),
                    )
                    .with([format!("datastore[{at}].node[{below}].region")]),
                );
            } else {
                taken.insert(key, (what, path));
            }
        }
    }
}
