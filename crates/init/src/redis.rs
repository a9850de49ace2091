//! One look at a Redis replication group, and what it has, lacks and must not have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use redis::Value;
use tier0_config::{Secret, Stack};
use tier0_core::words::{DatastoreName, NodeId, Region};

use crate::credentials::Credentials;
use crate::finding::{Finding, Level, Remedy, operator};
use crate::postgres::{Place, place};
use crate::request::NamedNodes;

/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Where a password goes in a command that is shown.
pub const PASSWORD: &str = "<password>";

/// Directives that are read from the running server, since `CONFIG SET` may have changed them.
const RUNNING: [&str; 17] = [
    "save",
    "appendonly",
    "appendfsync",
    "appendfilename",
    "appenddirname",
    "dbfilename",
    "maxmemory",
    "maxmemory-policy",
    "maxclients",
    "databases",
    "timeout",
    "tcp-keepalive",
    "protected-mode",
    "notify-keyspace-events",
    "repl-backlog-size",
    "bind",
    "io-threads",
];
/// Directives that only the configuration file shows.
const IN_FILE: [&str; 4] = ["rename-command", "user", "aclfile", "loadmodule"];

/// The backlog with which a restarted node catches up without a full copy.
const BACKLOG: i64 = 64 << 20;

/// One group.
pub struct Group {
    pub name: DatastoreName,
    pub nodes: Vec<Node>,
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub facts: Result<Facts, String>,
}

/// What a server says of itself.
pub struct Facts {
    pub executable: PathBuf,
    info: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
}

/// Look at all nodes of a group.
pub async fn look(nodes: &NamedNodes, credentials: &Credentials) -> Group {
    let mut group = Group { name: nodes.name.clone(), nodes: Vec::new() };
    for (region, address) in &nodes.nodes {
        let facts = match credentials.redis(&nodes.name) {
            Ok(password) => look_at(*address, password).await,
            Err(error) => Err(error),
        };
        let id = NodeId::new(nodes.name.clone(), region.clone());
        let facts = facts.map_err(|error| format!("{error:#}"));
        group.nodes.push(Node { id, address: *address, facts });
    }
    group
}

async fn look_at(address: SocketAddr, password: &Secret) -> Result<Facts> {
    let info: String = redis::from_redis_value(ask(address, Some(password), "INFO").await?)
        .context("the answer to INFO")?;
    let info: BTreeMap<_, _> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let settings = ask(address, Some(password), "CONFIG GET *").await?;
    let settings = redis::from_redis_value(settings).context("the answer to CONFIG GET")?;
    let executable = info.get("executable").map(PathBuf::from).unwrap_or_default();
    Ok(Facts { executable, info, settings })
}

/// Put one command; `<password>` in it becomes the password.
pub async fn ask(address: SocketAddr, password: Option<&Secret>, line: &str) -> Result<Value> {
    let mut login = redis::RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    let at = || format!("{address}");
    let info = redis::IntoConnectionInfo::into_connection_info(redis::ConnectionAddr::Tcp(
        address.ip().to_string(),
        address.port(),
    ))
    .with_context(at)?
    .set_redis_settings(login);
    let client = redis::Client::open(info).with_context(at)?;
    let asking = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        for word in line.split(' ') {
            let secret = password.filter(|_| word == PASSWORD);
            command.arg(secret.map_or(word, Secret::expose));
        }
        command.query_async::<Value>(&mut connection).await
    };
    tokio::time::timeout(LIMIT, asking)
        .await
        .map_err(|_| anyhow!("{address} does not answer"))?
        .map_err(|error| anyhow!("{address}: {error}"))
}

impl Group {
    /// The node that is master, if there is exactly one.
    pub fn master(&self) -> Option<&Node> {
        let is =
            |node: &&Node| node.facts.as_ref().is_ok_and(|facts| facts.info("role") == "master");
        match self.nodes.iter().filter(is).collect::<Vec<_>>().as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Its region.
    pub fn writer(&self) -> Option<&Region> {
        Some(self.master()?.id.region())
    }
}

impl Facts {
    /// A setting.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn info(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> i64 {
        self.setting(name).parse().unwrap_or(0)
    }

    /// The lines of its configuration file, if it can be read from here.
    fn file_lines(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.info("config_file")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim().split_once(' '))
            .filter(|(name, _)| !name.starts_with('#'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect()
    }
}

/// What the servers will be started with: what the master runs with now.
pub fn parameters(group: &Group) -> BTreeMap<String, Vec<String>> {
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(Ok(facts)) = group.master().map(|node| node.facts.as_ref()) else { return parameters };
    for name in RUNNING {
        let Some(value) = facts.settings.get(name) else { continue };
        let values = match name {
            "save" if value.is_empty() => vec!["\"\"".to_owned()],
            "save" => {
                let words: Vec<_> = value.split(' ').collect();
                words.chunks(2).map(|pair| pair.join(" ")).collect()
            }
            // One address per node is what tier0 writes by itself.
            "bind" if !same_everywhere(group, name) => continue,
            "repl-backlog-size" => vec![facts.number(name).max(BACKLOG).to_string()],
            _ if value.is_empty() => continue,
            _ => vec![value.clone()],
        };
        parameters.insert(name.to_owned(), values);
    }
    for (name, value) in facts.file_lines() {
        if IN_FILE.contains(&name.as_str()) {
            parameters.entry(name).or_default().push(value);
        }
    }
    parameters
}

fn same_everywhere(group: &Group, name: &str) -> bool {
    let mut values: Vec<_> = group
        .nodes
        .iter()
        .filter_map(|node| Some(node.facts.as_ref().ok()?.setting(name)))
        .collect();
    values.dedup();
    values.len() == 1
}

/// Judge a group.
pub fn judge(group: &Group, stack: &Stack, credentials: &Credentials) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &group.nodes {
        if let Err(why) = &node.facts {
            findings.push(Finding::new(&node.id, "reachable", Level::Wrong, why));
        }
    }
    let Some(master) = group.master() else {
        let sentence = "exactly one of its nodes must be a master";
        findings.push(Finding::new(&group.name, "primary", Level::Wrong, sentence));
        return findings;
    };
    let password = credentials.redis(&group.name).map(Secret::expose).unwrap_or_default();
    for node in &group.nodes {
        let Ok(facts) = &node.facts else { continue };
        role(node, facts, master, &mut findings);
        settings(node, facts, password, &mut findings);
        announced(node, master, &mut findings);
        on_disk(node, facts, stack, &mut findings);
    }
    findings
}

fn role(node: &Node, facts: &Facts, master: &Node, findings: &mut Vec<Finding>) {
    let mut add = |level, sentence: String| {
        findings.push(Finding::new(&node.id, "role", level, sentence));
    };
    if node.id == master.id {
        return add(Level::Ok, "the master".to_owned());
    }
    let follows = format!("{}:{}", facts.info("master_host"), facts.info("master_port"));
    if follows == master.address.to_string() && facts.info("master_link_status") == "up" {
        add(Level::Ok, format!("a replica of {follows}, in step"));
    } else {
        add(
            Level::Missing,
            format!(
                "it follows {follows} (link {}), not {}; tier0 makes it follow",
                facts.info("master_link_status"),
                master.address
            ),
        );
    }
}

/// Sentinels learn of a replica by the address that the master sees, and a replica tells its own
/// only when it connects.
fn announced(node: &Node, master: &Node, findings: &mut Vec<Finding>) {
    let Ok(facts) = &master.facts else { return };
    let wanted = format!("ip={},port={},", node.address.ip(), node.address.port());
    let seen = facts.info.iter().any(|(name, value)| {
        name.starts_with("slave") && value.contains("state=") && value.starts_with(&wanted)
    });
    if node.id != master.id && !seen {
        let sentence = "the master knows it by another address, and so do the Sentinels; it tells \
                        the new one when its link begins anew, which takes a moment";
        let lines = vec!["CLIENT KILL TYPE replica".to_owned()];
        findings.push(
            Finding::new(&node.id, "announced", Level::Missing, sentence)
                .by(Remedy::Redis { server: master.address.to_string(), lines }),
        );
    }
}

fn settings(node: &Node, facts: &Facts, password: &str, findings: &mut Vec<Finding>) {
    let mut needs = |name: &str, holds: bool, wanted: &str, why: &str| {
        findings.push(if holds {
            Finding::new(&node.id, "setting", Level::Ok, format!("{name}: {why}"))
        } else {
            let line = format!("CONFIG SET {name} {wanted}");
            Finding::new(&node.id, "setting", Level::Missing, format!("{name}: {why}"))
                .by(Remedy::Redis { server: node.address.to_string(), lines: vec![line] })
        });
    };
    let same = facts.setting("requirepass") == password;
    needs("requirepass", same, PASSWORD, "the same password on every node");
    let same = facts.setting("masterauth") == password;
    needs("masterauth", same, PASSWORD, "each node may have to follow the other");
    let lag = facts.number("min-replicas-max-lag");
    needs("min-replicas-max-lag", lag > 0, "10", "with 0 the fence of a switch does not hold");
    let backlog = facts.number("repl-backlog-size");
    needs(
        "repl-backlog-size",
        backlog >= BACKLOG,
        &BACKLOG.to_string(),
        "catching up without a full copy",
    );
    let (ip, port) = (node.address.ip().to_string(), node.address.port().to_string());
    let announced = facts.setting("replica-announce-ip");
    needs("replica-announce-ip", announced == ip, &ip, "the address that the others know");
    let announced = facts.setting("replica-announce-port");
    needs("replica-announce-port", announced == port, &port, "the port that the others know");
    let mut note = |code, sentence: String| {
        findings.push(Finding::new(&node.id, code, Level::Note, sentence));
    };
    let policy = facts.setting("maxmemory-policy");
    if policy != "noeviction" && facts.number("maxmemory") > 0 {
        note(
            "eviction",
            format!("{policy}: a write that is evicted is gone, and not tier0's loss"),
        );
    }
    if facts.setting("appendonly") == "no" && facts.setting("save").is_empty() {
        note("no-file", "it keeps nothing on disk: a restarted writer would be refused".to_owned());
    }
    let replicas = facts.number("min-replicas-to-write");
    if replicas > 0 {
        note(
            "min-replicas",
            format!("min-replicas-to-write is {replicas}; tier0 uses it as its fence and leaves 0"),
        );
    }
    if facts.number("tls-port") > 0 && facts.number("port") == 0 {
        findings.push(Finding::new(&node.id, "tls", Level::Wrong, "tier0 speaks no TLS to Redis"));
    }
}

fn on_disk(node: &Node, facts: &Facts, stack: &Stack, findings: &mut Vec<Finding>) {
    let Some(own) = stack.node(&node.id) else { return };
    let mut add = |code, level, sentence: String| {
        findings.push(Finding::new(&node.id, code, level, sentence));
    };
    if Path::new(facts.setting("dir")) != own.data_directory {
        let sentence = format!(
            "its dir is {}, the stack file says {}",
            facts.setting("dir"),
            own.data_directory.display()
        );
        add("data-directory", Level::Wrong, sentence);
    }
    let mine = rustix::process::geteuid().as_raw();
    match place(&own.data_directory) {
        Place::Here => {}
        Place::OtherUser(uid) => add(
            "owner",
            Level::Wrong,
            format!(
                "{} is of user {uid}, this is user {mine}: one agent looks after all servers of a \
                 region, so they must run as its user",
                own.data_directory.display()
            ),
        ),
        Place::Elsewhere => add("elsewhere", Level::Note, "its files are not on this host".into()),
    }
    let file = facts.info("config_file");
    let sentence = format!(
        "tier0 starts it with {}/redis.conf, made from the stack file's parameters",
        own.data_directory.display()
    );
    if Path::new(file) == own.data_directory.join("redis.conf") {
        findings.push(
            Finding::new(
                &node.id,
                "own-file",
                Level::Note,
                format!("{sentence}; yours is there now"),
            )
            .by(operator([format!("cp {file} {file}.operator")])),
        );
    } else {
        let sentence = if file.is_empty() { sentence } else { format!("{sentence}, not {file}") };
        findings.push(Finding::new(&node.id, "own-file", Level::Note, sentence));
    }
}
