//! Starting the PgBouncers of a lab: one per region and PostgreSQL datastore, with transaction
//! pooling, where the program is there.
//!
//! Left out: where they point after the start, which is their agents' business.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tier0_config::{
    DatastoreSettings, ProxyProtocol, RouteKind, RouteReads, RouteSettings, Secret, Stack,
};
use tier0_core::words::Epoch;
use tier0_route::{Pointed, pointer_text};

use crate::files;
use crate::launch::{Launcher, Program, User};
use crate::placement::{Place, Placement};
use crate::preflight::Programs;
use crate::secrets::SecretFiles;
use crate::state::{Kind, Started};

const PORT: u16 = 6_432;

/// The routes of PostgreSQL datastores, in their order.
pub fn routes(
    directory: &std::path::Path,
    datastores: &[DatastoreSettings],
    placement: &mut Placement,
) -> Result<Vec<RouteSettings>> {
    let mut routes = Vec::new();
    let served = datastores.iter().filter(|datastore| datastore.postgres.is_some());
    for (number, datastore) in served.enumerate() {
        let name = if number == 0 { "pool".to_owned() } else { format!("pool-{}", number + 1) };
        let port = PORT + u16::try_from(number).context("so many datastores")?;
        for place in Place::REGIONS {
            let own = directory.join(place.name()).join(&name);
            routes.push(RouteSettings {
                name: name.parse()?,
                region: place.region(),
                kind: RouteKind::Pgbouncer,
                datastore: datastore.name.clone(),
                address: placement.choose(place, &format!("{name}.{}", place.name()), port)?,
                read_address: None,
                socket_directory: own.clone(),
                admin_user: "pgbouncer".to_owned(),
                reads: RouteReads::Bounded,
                pointer_file: own.join("databases.ini"),
                proxy_protocol: ProxyProtocol::Off,
                fronts: BTreeMap::new(),
            });
        }
    }
    Ok(routes)
}

/// Start them all.
pub fn start(stack: &Stack, launcher: &Launcher, programs: &Programs) -> Result<Vec<Started>> {
    let pools = stack.routes.iter().filter(|route| route.kind == RouteKind::Pgbouncer);
    pools.map(|route| start_one(stack, launcher, programs, route)).collect()
}

/// Start one; also one that ran before, which still points where it did.
pub fn start_one(
    stack: &Stack,
    launcher: &Launcher,
    programs: &Programs,
    route: &RouteSettings,
) -> Result<Started> {
    let program = programs.pgbouncer.clone().context("pgbouncer is missing")?;
    let id = route.id();
    let directory = route.socket_directory.clone();
    files::create_directory(&directory, &launcher.account)?;
    let configuration = configure(stack, launcher, route)?;
    let log = launcher.directory.join("logs").join(format!("{id}.log"));
    let process = launcher.start(&Program {
        path: program,
        arguments: vec![configuration.into()],
        environment: Vec::new(),
        log: log.clone(),
        end: route.region.as_str().parse()?,
        user: User::Lab,
    })?;
    Ok(Started {
        name: id.to_string(),
        site: route.region.as_str().parse()?,
        kind: Kind::Route,
        process,
        address: route.address,
        log,
        directory,
    })
}

/// Write what it reads.
fn configure(stack: &Stack, launcher: &Launcher, route: &RouteSettings) -> Result<PathBuf> {
    let account = &launcher.account;
    let directory = &route.socket_directory;
    let datastore = stack.datastore(&route.datastore).context("a route has a datastore")?;
    let postgres = datastore.postgres.as_ref().context("PostgreSQL settings")?;
    if !route.pointer_file.exists() {
        let home = datastore.node(&Place::Region1.region()).context("no node at home")?;
        let pointed = Pointed { epoch: Epoch::FIRST, to: home.region.clone() };
        let text = pointer_text(&pointed, &postgres.database, home.address);
        files::write_private(&route.pointer_file, text.as_bytes(), account)?;
    }
    let users = directory.join("users.txt");
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    // With the password itself it would compute thousands of hashes for each login at a server, while
    // clients wait for it.
    let verifier = SecretFiles::below(&launcher.directory).application_verifier;
    let verifier = Secret::from_file(&verifier)?;
    let line = format!("{} {}\n", quoted(&postgres.application_user), quoted(verifier.expose()));
    files::write_private(&users, line.as_bytes(), account)?;
    let text = format!(
        "[databases]\n\
         %include {}\n\
         [pgbouncer]\n\
         listen_addr = {}\n\
         listen_port = {}\n\
         unix_socket_dir = {}\n\
         auth_type = scram-sha-256\n\
         auth_file = {}\n\
         pool_mode = transaction\n\
         max_client_conn = 1000\n\
         ; More than the server can work for at once would only make a move longer.\n\
         default_pool_size = {}\n\
         ; A server that was not there is tried again at once, not after 15 s.\n\
         server_login_retry = 0.01\n\
         ; Answers that never come end with the connection, in three seconds.\n\
         tcp_keepalive = 1\n\
         tcp_keepidle = 1\n\
         tcp_keepintvl = 1\n\
         tcp_keepcnt = 2\n\
         tcp_user_timeout = 3000\n\
         ignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\n\
         log_disconnections = 0\n",
        route.pointer_file.display(),
        route.address.ip(),
        route.address.port(),
        directory.display(),
        users.display(),
        2 * std::thread::available_parallelism().map_or(2, usize::from),
    );
    let file = directory.join("pgbouncer.ini");
    files::write_private(&file, text.as_bytes(), account)?;
    Ok(file)
}
