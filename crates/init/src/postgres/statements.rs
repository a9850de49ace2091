//! The SQL that the primary needs. A password stands in it as `:'password'`, as `psql` would have
//! it, and is put in only on the way to the server.

use anyhow::{Result, anyhow};
use tier0_config::Secret;
use tokio_postgres::Client;

use super::{Cluster, Facts, described};

/// Where the password goes.
const PASSWORD: &str = ":'password'";

/// An identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// For the role of the agent.
pub fn admin_role(name: &str) -> Vec<String> {
    vec![format!("CREATE ROLE {} SUPERUSER LOGIN", identifier(name))]
}

/// For the role with which standbys stream; with the rights that `pg_rewind` needs.
pub fn replication_role(name: &str, facts: &Facts) -> Vec<String> {
    let known = facts.roles.as_ref().and_then(|roles| roles.get(name));
    let name = identifier(name);
    let mut lines = Vec::new();
    match known {
        None => lines.extend([
            "SET password_encryption = 'scram-sha-256'".to_owned(),
            format!("CREATE ROLE {name} REPLICATION LOGIN PASSWORD {PASSWORD}"),
        ]),
        Some(role) if !role.replication || !role.login => {
            lines.push(format!("ALTER ROLE {name} REPLICATION LOGIN"));
        }
        Some(_) => {}
    }
    if known.is_none_or(|role| !role.checkpoint) {
        lines.push(format!("GRANT pg_checkpoint TO {name}"));
    }
    if known.is_none_or(|role| !role.reads_files) {
        lines.push(format!(
            "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), \
             pg_stat_file(text, boolean), pg_read_binary_file(text), \
             pg_read_binary_file(text, bigint, bigint, boolean) TO {name}"
        ));
    }
    if known.is_none_or(|role| !role.connects) {
        lines.push(format!("GRANT CONNECT ON DATABASE postgres TO {name}"));
    }
    lines
}

/// For the table that canaries are written to, in the application's database.
pub fn canary(admin: &str) -> Vec<String> {
    let admin = identifier(admin);
    vec![
        format!("CREATE SCHEMA IF NOT EXISTS tier0 AUTHORIZATION {admin}"),
        "CREATE TABLE IF NOT EXISTS tier0.canary (\
         id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token text NOT NULL, \
         written_at timestamptz NOT NULL DEFAULT now())"
            .to_owned(),
        format!("ALTER TABLE tier0.canary OWNER TO {admin}"),
    ]
}

/// For the slots that the primary lacks: one for each other node.
pub fn slots(cluster: &Cluster, facts: &Facts) -> Vec<String> {
    let known = facts.slots.clone().unwrap_or_default();
    let primary = cluster.primary().map(|node| node.id.clone());
    cluster
        .nodes
        .iter()
        .filter(|node| Some(&node.id) != primary.as_ref())
        .map(|node| node.id.slot_name())
        .filter(|slot| !known.contains(slot))
        .map(|slot| format!("SELECT pg_create_physical_replication_slot({}, true)", literal(&slot)))
        .collect()
}

/// Run one line. Whatever fails is told without the line: it may hold a password.
pub async fn run(client: &Client, line: &str, password: &Secret) -> Result<()> {
    let quiet = "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; \
                 SET log_min_duration_statement = -1";
    let told = |error: tokio_postgres::Error| anyhow!("{line}: {}", described(&error));
    client.simple_query(quiet).await.map_err(told)?;
    let sql = line.replace(PASSWORD, &literal(password.expose()));
    client.simple_query(&sql).await.map(|_| ()).map_err(told)
}
