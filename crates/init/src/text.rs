//! The stack file's text with comments: made from the settings themselves, so that it always
//! parses to what was meant.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use tier0_config::Stack;

/// Section, key and what is said before its first appearance.
const COMMENTS: &[(&str, &str, &str)] = &[
    ("[stack]", "regions", "The two regions that hold data; the first is the writer's home."),
    (
        "[stack]",
        "role_token_file",
        "With this token agents and orchestrator know each other; the same file on every host.",
    ),
    ("[[orchestrator]]", "listen", "Where `tier0 status`, `tier0 check` and `tier0 failover` ask."),
    (
        "[[orchestrator]]",
        "state_directory",
        "The authority record is here: on a disk of its own host, never shared.",
    ),
    ("[[agent]]", "listen", "Reached by the orchestrator and by the other region's agent."),
    (
        "[[datastore.node]]",
        "address",
        "As clients and the other region see it; an address, so that no name service is needed.",
    ),
    (
        "[[datastore.node]]",
        "archive_directory",
        "Looked through for WAL by restore_command; your archive_command stays what it is.",
    ),
    ("[[datastore.node]]", "log_file", "Standard error of a server that the agent started."),
    (
        "[datastore.node.adopted]",
        "config_directory",
        "Your postgresql.conf stays yours: tier0 adds an include at its end. Your lines of pg_hba.conf\n# and pg_ident.conf are kept in DATA_DIRECTORY.operator: change them there.",
    ),
    (
        "[datastore.postgres]",
        "admin_user",
        "The agent's own role: superuser, by the Unix socket and peer authentication alone.",
    ),
    ("[datastore.postgres]", "application_password_file", "Read by the reference backend only."),
    (
        "[datastore.postgres.parameters]",
        "",
        "Settings for tier0.conf, which wins over postgresql.conf.",
    ),
    ("[datastore.redis]", "master_name", "The name under which Sentinels know it."),
    (
        "[datastore.redis.parameters]",
        "",
        "What redis.conf is made from before every start; taken from the running master.",
    ),
    ("[limits]", "", "Limits and time-outs; these are the defaults."),
];

/// The text.
pub fn commented(stack: &Stack) -> Result<String> {
    let plain = stack.to_toml().context("write the stack file")?;
    let mut text =
        "# Written by `tier0 init` from servers that run; yours to change. Every role reads it.\n"
            .to_owned();
    let mut section = "";
    let mut said = BTreeSet::new();
    for line in plain.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let key = if line.starts_with('[') { "" } else { line.split(' ').next().unwrap_or("") };
        let comment = COMMENTS.iter().find(|(of, name, _)| *of == section && *name == key);
        if let Some((of, name, comment)) = comment.filter(|_| !line.is_empty())
            && said.insert((of, name))
        {
            text.push_str(&format!("# {comment}\n"));
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}
