//! The text of `pg_hba.conf` and `pg_ident.conf`: who may connect while clients are kept out, and
//! who once they are let in (P8).
//!
//! Source of the form: `hba.c`. There is no `trust` and no `all` in any line.

use crate::quote::hba_name;
use crate::settings::{Checked, ClientNetwork};

/// Whether clients are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Only the agent and the other nodes may connect.
    KeptOut,
    /// The application may connect too.
    Admitted,
}

impl Clients {
    fn mark(self) -> &'static str {
        match self {
            Clients::KeptOut => "# tier0: clients are kept out\n",
            Clients::Admitted => "# tier0: clients are admitted\n",
        }
    }

    /// Which variant a file is. A file of somebody else counts as admitting: it may.
    pub(crate) fn of_file(text: &str) -> Self {
        if text.starts_with(Clients::KeptOut.mark()) { Clients::KeptOut } else { Clients::Admitted }
    }
}

/// The name of the map in `pg_ident.conf`.
const MAP: &str = "tier0";

/// The whole of `pg_hba.conf`. `operators` are the lines of an adopted server's operator, which
/// say who may connect once clients are let in.
pub(crate) fn pg_hba_conf(node: &Checked, clients: Clients, operators: Option<&str>) -> String {
    let postgres = &node.settings.postgres;
    let mut text = clients.mark().to_owned();
    text.push_str(&own_lines(node));
    match (clients, operators) {
        (Clients::KeptOut, _) => {}
        (Clients::Admitted, Some(operators)) => {
            let kept = node.paths.operators.join("pg_hba.conf");
            text.push_str(&format!("# What follows is a copy of {}\n", kept.display()));
            text.push_str(operators);
        }
        (Clients::Admitted, None) => {
            let database = hba_name(&postgres.database);
            let user = hba_name(&postgres.application_user);
            for network in &node.settings.client_networks {
                text.push_str(&format!("host {database} {user} {network} scram-sha-256\n"));
            }
        }
    }
    text
}

/// The lines that the agent and the other nodes connect by.
pub(crate) fn own_lines(node: &Checked) -> String {
    let postgres = &node.settings.postgres;
    let mut text = String::new();
    let admin = hba_name(&postgres.admin_user);
    for database in ["postgres".to_owned(), postgres.database.clone()] {
        let database = hba_name(&database);
        text.push_str(&format!("local {database} {admin} peer map={MAP}\n"));
    }
    let replication = hba_name(&postgres.replication_user);
    for (_, peer) in node.peers() {
        let network = ClientNetwork::of(peer.address.ip());
        // The keyword is written bare: quoted, it would be the name of a database.
        text.push_str(&format!("host replication {replication} {network} scram-sha-256\n"));
        // pg_rewind reads files by SQL functions.
        text.push_str(&format!("host \"postgres\" {replication} {network} scram-sha-256\n"));
    }
    text
}

/// How an adopted server's `pg_ident.conf` begins.
const IDENT_MARK: &str = "# tier0: the agent's own role first\n";

/// The whole of `pg_ident.conf`: the system user that the server runs as is the admin role.
pub(crate) fn pg_ident_conf(node: &Checked, system_user: &str, operators: Option<&str>) -> String {
    let line = ident_line(node, system_user);
    match operators {
        Some(operators) => format!("{IDENT_MARK}{line}{operators}"),
        None => line,
    }
}

/// The line of the map by which the agent connects.
pub(crate) fn ident_line(node: &Checked, system_user: &str) -> String {
    let admin = hba_name(&node.settings.postgres.admin_user);
    format!("{MAP} {} {admin}\n", hba_name(system_user))
}

/// Whether a `pg_hba.conf` or `pg_ident.conf` was written by tier0.
pub(crate) fn is_own(text: &str) -> bool {
    [Clients::KeptOut.mark(), Clients::Admitted.mark(), IDENT_MARK]
        .iter()
        .any(|mark| text.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_own_closed_file_counts_as_closed() {
        assert_eq!(Clients::of_file(Clients::KeptOut.mark()), Clients::KeptOut);
        assert_eq!(Clients::of_file(Clients::Admitted.mark()), Clients::Admitted);
        assert_eq!(Clients::of_file("local all all trust"), Clients::Admitted);
        assert_eq!(Clients::of_file(""), Clients::Admitted);
    }
}
