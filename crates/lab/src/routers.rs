//! The routes of a lab's routers: in each region one router with a port for each datastore and
//! one for those who only read there, where they were asked for. Where they point is their agents' business, from the first second on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use tier0_config::{DatastoreSettings, ProxyProtocol, RouteKind, RouteReads, RouteSettings};
use tier0_core::record::DatastoreKind;

use crate::placement::{Place, Placement};

/// The routes to every datastore, `to-` and its name.
pub fn routes(
    directory: &Path,
    datastores: &[DatastoreSettings],
    placement: &mut Placement,
) -> Result<Vec<RouteSettings>> {
    let mut routes = Vec::new();
    for (number, datastore) in (0..).zip(datastores) {
        let name = format!("to-{}", datastore.name);
        let (write, read): (u16, u16) = match datastore.kind {
            DatastoreKind::Postgres => (25_432, 25_442),
            DatastoreKind::Redis => (26_479, 26_489),
        };
        for place in Place::REGIONS {
            let own = state_directory(directory, place);
            let what = format!("{name}.{}", place.name());
            routes.push(RouteSettings {
                name: name.parse()?,
                region: place.region(),
                kind: RouteKind::Proxy,
                datastore: datastore.name.clone(),
                address: placement.choose(place, &what, write + number)?,
                read_address: Some(placement.choose(
                    place,
                    &format!("{what} for reads"),
                    read + number,
                )?),
                socket_directory: own.clone(),
                admin_user: "pgbouncer".to_owned(),
                reads: RouteReads::Strict,
                pointer_file: own.join(format!("{name}.pointer")),
                proxy_protocol: ProxyProtocol::Off,
                fronts: BTreeMap::new(),
            });
        }
    }
    Ok(routes)
}

fn state_directory(directory: &Path, place: Place) -> std::path::PathBuf {
    directory.join(place.name()).join("router")
}
