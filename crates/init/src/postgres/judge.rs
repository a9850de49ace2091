//! What a cluster has, lacks and must not have, judged by one look.

use anyhow::Result;
use tier0_config::{NodeSettings, PostgresSettings, Stack};
use tier0_core::words::NodeId;

use super::{Cluster, Facts, Node, Place, adopter, place, statements};
use crate::finding::{FileLines, Finding, Level, Remedy, operator, sql};
use crate::secrets::SecretFiles;

/// The oldest major version that is supported: `pg_rewind --config-file` and `pg_checkpoint`.
const OLDEST: u32 = 150_000;

/// Settings that must be empty.
const FORBIDDEN: [&str; 6] = [
    "archive_library",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
];

/// Judge a cluster.
pub async fn judge(
    cluster: &Cluster,
    stack: &Stack,
    secrets: &SecretFiles,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for node in &cluster.nodes {
        if let Err(why) = &node.facts {
            findings.push(Finding::new(&node.id, "reachable", Level::Wrong, why));
        }
    }
    let primary = cluster.primary();
    let settings = stack.datastore(&cluster.name).and_then(|one| one.postgres.as_ref());
    let (Some(primary), Some(postgres)) = (primary, settings) else {
        let sentence =
            "exactly one of its nodes must be a primary, and the stack file must have it";
        findings.push(Finding::new(&cluster.name, "primary", Level::Wrong, sentence));
        return Ok(findings);
    };
    let Ok(facts) = &primary.facts else { return Ok(findings) };
    whole(cluster, primary, facts, stack, &mut findings);
    roles(cluster, facts, postgres, secrets, &mut findings);
    for node in &cluster.nodes {
        let Ok(facts) = &node.facts else { continue };
        let Some(own) = stack.node(&node.id) else { continue };
        server(node, facts, &mut findings);
        restarts(node, facts, &mut findings);
        on_disk(node, facts, own, postgres, &mut findings);
        let upstream = (node.id != primary.id).then_some(&primary.id);
        findings.push(files(&node.id, own, upstream, stack, secrets).await?);
    }
    Ok(findings)
}

fn finding(node: &Node, code: &'static str, level: Level, sentence: impl Into<String>) -> Finding {
    Finding::new(&node.id, code, level, sentence)
}

/// What concerns all nodes together.
fn whole(
    cluster: &Cluster,
    primary: &Node,
    facts: &Facts,
    stack: &Stack,
    findings: &mut Vec<Finding>,
) {
    let home = stack.stack.regions.first();
    if home == Some(primary.id.region()) {
        let sentence = format!("the primary is in {}, the writer's home", primary.id.region());
        findings.push(finding(primary, "primary", Level::Ok, sentence));
    } else {
        let sentence = format!(
            "the primary is in {} and stack.regions begins with another region",
            primary.id.region()
        );
        findings.push(finding(primary, "primary", Level::Wrong, sentence));
    }
    for node in cluster.nodes.iter().filter(|node| node.id != primary.id) {
        let Ok(standby) = &node.facts else { continue };
        if standby.system != facts.system {
            let sentence =
                format!("its data is of system {}, not {}", standby.system, facts.system);
            findings.push(finding(node, "system", Level::Wrong, sentence));
        }
        let short: Vec<_> = [
            "max_connections",
            "max_worker_processes",
            "max_wal_senders",
            "max_prepared_transactions",
            "max_locks_per_transaction",
        ]
        .into_iter()
        .filter(|name| standby.number(name) < facts.number(name))
        .collect();
        if !short.is_empty() {
            let sentence = format!("lower than the primary's, which ends a promotion: {short:?}");
            findings.push(finding(node, "standby-limits", Level::Wrong, sentence));
        }
        let (level, sentence) = match standby.streaming {
            true => (Level::Ok, "it streams"),
            false => (Level::Missing, "it does not stream; tier0 makes it follow"),
        };
        findings.push(finding(node, "streaming", level, sentence));
    }
    let overrides = facts.overrides.clone().unwrap_or_default();
    if !overrides.is_empty() {
        let sentence = format!(
            "their commits are not waited for, so their writes can be lost: {}",
            overrides.join(", ")
        );
        findings.push(finding(primary, "synchronous-commit", Level::Note, sentence));
    }
    let names = facts.setting("synchronous_standby_names");
    if !names.is_empty() && !names.contains('#') {
        let sentence = format!(
            "commits wait for '{names}' now; tier0 takes that back before it joins its own member, \
             so for a moment there is one copy"
        );
        findings.push(finding(primary, "synchronous-names", Level::Note, sentence));
    }
    if facts.logical_slots > 0 {
        let sentence =
            format!("{} logical slot(s): they do not move with the writer", facts.logical_slots);
        findings.push(finding(primary, "logical-slots", Level::Note, sentence));
    }
    if facts.tablespaces > 0 {
        let sentence = "tablespaces outside the data directory: a base backup by tier0 fails while \
                        their old files are there, so a rebuild needs an operator";
        findings.push(finding(primary, "tablespaces", Level::Note, sentence));
    }
}

/// What SQL on the primary makes.
fn roles(
    cluster: &Cluster,
    facts: &Facts,
    postgres: &PostgresSettings,
    secrets: &SecretFiles,
    findings: &mut Vec<Finding>,
) {
    let mut needs = |code, what: &str, database: &str, lines: Vec<String>| {
        findings.push(if lines.is_empty() {
            Finding::new(&cluster.name, code, Level::Ok, what)
        } else {
            Finding::new(&cluster.name, code, Level::Missing, what).by(sql(database, lines))
        });
    };
    let role = |name: &str| facts.roles.as_ref().and_then(|roles| roles.get(name));
    let admin = &postgres.admin_user;
    let lines = match role(admin) {
        Some(role) if role.superuser && role.login => Vec::new(),
        Some(_) => vec![format!("ALTER ROLE {} SUPERUSER LOGIN", statements::identifier(admin))],
        None => statements::admin_role(admin),
    };
    needs("admin-role", &format!("the agent's role {admin}"), "postgres", lines);
    let replication = &postgres.replication_user;
    let what = format!(
        "the role {replication} of standbys and pg_rewind, password in {}",
        secrets.file("replication-password").display()
    );
    let lines = statements::replication_role(replication, facts);
    needs("replication-role", &what, "postgres", lines);
    let lines = if facts.has_canary { Vec::new() } else { statements::canary(admin) };
    let what = format!("schema tier0 in database {}", postgres.database);
    if facts.databases.contains(&postgres.database) {
        needs("canary", &what, &postgres.database, lines);
    } else {
        let sentence = format!("there is no database {}", postgres.database);
        needs("canary", &sentence, "postgres", vec![format!("-- {sentence}")]);
    }
    needs("slots", "a slot for each standby", "postgres", statements::slots(cluster, facts));
}

/// What must hold of one server, and cannot be mended by a reload.
fn server(node: &Node, facts: &Facts, findings: &mut Vec<Finding>) {
    if !facts.superuser {
        let sentence = "the role in the credentials is no superuser";
        findings.push(finding(node, "superuser", Level::Wrong, sentence));
    }
    if facts.version < OLDEST {
        let sentence = format!("server version {}; 15 is the oldest supported", facts.version);
        findings.push(finding(node, "version", Level::Wrong, sentence));
    }
    for name in FORBIDDEN.into_iter().filter(|name| !facts.setting(name).is_empty()) {
        let sentence =
            format!("{name} is set: it would end recovery or archive behind tier0's back");
        findings.push(finding(node, "setting", Level::Wrong, sentence));
    }
    let mut needs = |name: &str, holds: bool, value: &str, why: &str| {
        let is = facts.setting(name);
        findings.push(if holds {
            finding(node, "setting", Level::Ok, format!("{name} = {is}"))
        } else {
            finding(node, "setting", Level::Wrong, format!("{name} = {is}: {why}")).by(operator([
                format!("ALTER SYSTEM SET {name} = {value};  -- then restart this server"),
            ]))
        });
    };
    let wal_level = matches!(facts.setting("wal_level"), "replica" | "logical");
    needs("wal_level", wal_level, "'replica'", "nobody can stream");
    let senders = facts.number("max_wal_senders");
    needs("max_wal_senders", senders >= 4, "10", "at least 4 for stream and base backup");
    let slots = facts.number("max_replication_slots");
    needs("max_replication_slots", slots >= 2, "10", "at least 2");
    needs("hot_standby", facts.setting("hot_standby") == "on", "on", "a standby cannot be asked");
}

/// What takes effect only at the next start, and what is not safe until then.
fn restarts(node: &Node, facts: &Facts, findings: &mut Vec<Finding>) {
    let hints = facts.setting("data_checksums") == "on" || facts.setting("wal_log_hints") == "on";
    findings.push(if hints {
        finding(node, "rewind", Level::Ok, "pg_rewind works on this data")
    } else {
        let sentence = "neither checksums nor wal_log_hints: until this server is started with \
                        tier0.conf in force, an old primary with surplus WAL rejoins by a whole \
                        base backup and not by pg_rewind; nothing is lost by that";
        finding(node, "rewind", Level::NeedsRestart, sentence).by(operator([
            "wal_log_hints = on  # in tier0.conf; the next start by tier0 makes it so".to_owned(),
        ]))
    });
    if facts.setting("archive_mode") == "off" {
        let sentence = "archive_mode is off: a rewind depends on wal_keep_size alone. tier0 leaves \
                        archiving to you";
        findings.push(finding(node, "archive", Level::Note, sentence));
    }
    let pending: Vec<_> = facts.pending.iter().flatten().map(String::as_str).collect();
    if !pending.is_empty() {
        let sentence = format!("waiting for the next start: {}", pending.join(", "));
        findings.push(finding(node, "pending-restart", Level::NeedsRestart, sentence));
    }
}

/// What is on the server's host.
fn on_disk(
    node: &Node,
    facts: &Facts,
    own: &NodeSettings,
    postgres: &PostgresSettings,
    findings: &mut Vec<Finding>,
) {
    if facts.path("data_directory") != own.data_directory {
        let sentence = format!(
            "its data directory is {}, the stack file says {}",
            facts.setting("data_directory"),
            own.data_directory.display()
        );
        findings.push(finding(node, "data-directory", Level::Wrong, sentence));
    }
    let mine = rustix::process::geteuid().as_raw();
    match place(&own.data_directory) {
        Place::Here => {}
        Place::OtherUser(uid) => {
            let sentence = format!(
                "{} is of user {uid}, this is user {mine}: the agent must run as that user, and so \
                 must `tier0 init --apply`",
                own.data_directory.display()
            );
            findings.push(finding(node, "owner", Level::Wrong, sentence));
        }
        Place::Elsewhere => {
            let sentence = "its files are not on this host: run `tier0 init` there too, with the \
                            same --directory copied";
            findings.push(finding(node, "elsewhere", Level::Note, sentence));
            return;
        }
    }
    let beside = own.data_directory.parent().map(super::place);
    if beside != Some(Place::Here) {
        let sentence = "the directory above the data directory must be the server's user's: a base \
                        backup is made beside the data and then takes its place";
        findings.push(finding(node, "beside", Level::Wrong, sentence));
    }
    let missing: Vec<_> = ["postgres", "pg_controldata", "pg_basebackup", "pg_rewind"]
        .into_iter()
        .filter(|name| !postgres.bin_directory.join(name).exists())
        .collect();
    if !missing.is_empty() {
        let sentence = format!("not in {}: {missing:?}", postgres.bin_directory.display());
        findings.push(finding(node, "programs", Level::Wrong, sentence));
    }
}

/// The lines of its configuration files.
async fn files(
    id: &NodeId,
    own: &NodeSettings,
    upstream: Option<&NodeId>,
    stack: &Stack,
    secrets: &SecretFiles,
) -> Result<Finding> {
    let Some(adopted) = &own.adopted else {
        let sentence = "tier0 writes all of its configuration";
        return Ok(Finding::new(id, "files", Level::Ok, sentence));
    };
    let lines =
        adopter(stack, id, secrets)?.adoption_lines(upstream).await.map_err(anyhow::Error::msg)?;
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let present = lines.role.0.exists()
        && read(&lines.main.0).contains(lines.main.1.trim())
        && read(&lines.clients.0).contains(&lines.clients.1)
        && read(&lines.ident.0).contains(&lines.ident.1);
    if present {
        let sentence = format!("{} ends with tier0.conf", lines.main.0.display());
        return Ok(Finding::new(id, "files", Level::Ok, sentence));
    }
    let file = |(path, lines): (std::path::PathBuf, String), place| FileLines {
        path: path.display().to_string(),
        place,
        lines,
    };
    let files = vec![
        file(lines.clients, "before all other lines"),
        file(lines.ident, "before all other lines"),
        file(lines.role, "a new file, mode 0600"),
        file(lines.main, "as its last line"),
    ];
    let level = match place(&adopted.config_directory) {
        Place::Elsewhere => Level::Note,
        Place::Here | Place::OtherUser(_) => Level::Missing,
    };
    let sentence = "the agent's way in, the standbys' way in, and tier0's settings";
    Ok(Finding::new(id, "files", level, sentence).by(Remedy::Files { node: id.clone(), files }))
}
