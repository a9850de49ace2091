//! Where the cluster is, and who we are to it.

use std::fmt;

use tier0_core::words::StackName;

use crate::StoreError;

/// What it takes to use a cluster.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// The members' client addresses, such as `http://127.0.0.1:2379`, the nearest first.
    pub endpoints: Vec<String>,
    /// Whose record it is: everything lies below `/tier0/<stack>/`.
    pub stack: StackName,
    /// For a cluster that asks who we are.
    pub credentials: Option<EtcdCredentials>,
}

/// A user of the cluster.
#[derive(Clone)]
pub struct EtcdCredentials {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for EtcdCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdCredentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The endpoints as addresses to which a path can be appended.
pub(super) fn addresses(settings: &EtcdSettings) -> Result<Vec<String>, StoreError> {
    let mut addresses = Vec::new();
    for endpoint in &settings.endpoints {
        let address = address(endpoint).map_err(|problem| StoreError::Invalid {
            what: "etcd endpoint",
            problem: format!("{endpoint:?} {problem}"),
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        let problem = "there is none; name every member of the cluster".to_owned();
        return Err(StoreError::Invalid { what: "etcd endpoints", problem });
    }
    Ok(addresses)
}

fn address(endpoint: &str) -> Result<String, String> {
    let rest = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    if rest.contains("://") {
        return Err("is not plain HTTP, and this build knows no other way to etcd".to_owned());
    }
    let form = "must be a host and a port, such as http://127.0.0.1:2379";
    let url = reqwest::Url::parse(&format!("http://{rest}")).map_err(|_| form.to_owned())?;
    let port = rest.trim_end_matches('/').rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    match (url.host_str(), port) {
        (Some(host), Some(Ok(port))) if bare && url.username().is_empty() => {
            Ok(format!("http://{host}:{port}"))
        }
        _ => Err(form.to_owned()),
    }
}
