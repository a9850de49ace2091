//! The `redis.conf` a node is started with. It is made anew before every start, so nothing in it is
//! remembered: a server always starts fenced (D3) and takes its role from the order alone.
//!
//! `CONFIG REWRITE` is not used: it would store the open state, and it holds the server up for an
//! fsync in the middle of a switch.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tier0_config::Secret;

use crate::settings::Place;

/// `min-replicas-to-write` of a server that may accept no write: more replicas than there can be.
pub const FENCED: u64 = 99;

/// What tier0 sets by itself; a parameter of this name is left out.
const OWNED: &[&str] = &[
    "port",
    "tls-port",
    "dir",
    "daemonize",
    "supervised",
    "pidfile",
    "logfile",
    "requirepass",
    "masterauth",
    "replicaof",
    "slaveof",
    "replica-announce-ip",
    "replica-announce-port",
    "min-replicas-to-write",
    "min-slaves-to-write",
];

/// Used where the parameters say nothing.
const DEFAULTS: &[(&str, &str)] = &[
    // With 0 the fence would not hold: min-replicas-to-write is ignored then (server.c,
    // checkGoodReplicasStatus).
    ("min-replicas-max-lag", "10"),
    // Small backlogs turn a reconnect into a full resynchronisation.
    ("repl-backlog-size", "64mb"),
    ("repl-backlog-ttl", "0"),
    ("repl-diskless-sync", "yes"),
    ("repl-diskless-sync-delay", "0"),
    // The old data goes only after the whole of the new was received.
    ("repl-diskless-load", "disabled"),
    // Replicas are waited for by the switch itself, not by the stop.
    ("shutdown-timeout", "0"),
    ("replica-serve-stale-data", "yes"),
    ("replica-read-only", "yes"),
];

/// Whether the append-only file is on from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendOnly {
    /// As the parameters say.
    AsConfigured,
    /// Off: there is only an RDB, and Redis 7 would start empty beside it (aof.c,
    /// loadAppendOnlyFiles is preferred over the RDB whenever appendonly is on).
    OffWhileLoading,
}

/// The text of `redis.conf` for a server that starts as replica of `upstream`, or as (fenced)
/// master. `parameters` are lines as in the stack's configuration: a key may have several values,
/// which become several lines.
///
/// Contains the password: keep it in files that only the server's user may read.
pub fn redis_conf(
    parameters: &BTreeMap<String, Vec<String>>,
    address: SocketAddr,
    directory: &Path,
    log_file: &Path,
    password: &Secret,
    upstream: Option<SocketAddr>,
) -> String {
    let place = Place { address, directory: directory.to_owned(), log_file: log_file.to_owned() };
    text(parameters, &place, password, upstream, AppendOnly::AsConfigured)
}

fn text(
    parameters: &BTreeMap<String, Vec<String>>,
    place: &Place,
    password: &Secret,
    upstream: Option<SocketAddr>,
    append_only: AppendOnly,
) -> String {
    let mut lines =
        vec!["# Written by tier0 before every start. Changes made here are lost.".into()];
    for (name, values) in parameters {
        if OWNED.contains(&name.as_str())
            || (name == "appendonly" && append_only == AppendOnly::OffWhileLoading)
        {
            continue;
        }
        lines.extend(values.iter().map(|value| format!("{name} {value}")));
    }
    for (name, value) in DEFAULTS {
        if !parameters.contains_key(*name) {
            lines.push(format!("{name} {value}"));
        }
    }
    if append_only == AppendOnly::OffWhileLoading {
        lines.push("appendonly no".into());
    }
    if !parameters.contains_key("bind") {
        lines.push(format!("bind {}", place.address.ip()));
    }
    let (ip, port) = (place.address.ip(), place.address.port());
    let password = quoted(password.expose());
    lines.extend([
        format!("port {port}"),
        format!("replica-announce-ip {ip}"),
        format!("replica-announce-port {port}"),
        format!("dir {}", quoted(&place.directory.to_string_lossy())),
        format!("pidfile {}", quoted(&place.pid_file().to_string_lossy())),
        format!("logfile {}", quoted(&place.log_file.to_string_lossy())),
        // Its own session and no parent: the server outlives the agent.
        "daemonize yes".into(),
        format!("requirepass {password}"),
        format!("masterauth {password}"),
        format!("min-replicas-to-write {FENCED}"),
    ]);
    if let Some(upstream) = upstream {
        lines.push(format!("replicaof {} {}", upstream.ip(), upstream.port()));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A word as `redis.conf` wants it (sds.c, sdssplitargs).
pub(crate) fn quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for byte in word.bytes() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(byte)),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out.push('"');
    out
}

/// Put the file in its place, readable by its owner only.
pub(crate) fn write(
    parameters: &BTreeMap<String, Vec<String>>,
    place: &Place,
    password: &Secret,
    upstream: Option<SocketAddr>,
    append_only: AppendOnly,
) -> io::Result<()> {
    let new = place.directory.join("redis.conf.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text(parameters, place, password, upstream, append_only).as_bytes())?;
    drop(file);
    fs::rename(&new, place.conf_file())
}

/// Whether the file of the last start, as Sentinel may have rewritten it, makes a replica.
pub(crate) fn says_replica(place: &Place) -> bool {
    fs::read_to_string(place.conf_file()).is_ok_and(|text| {
        text.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("replicaof ") || line.starts_with("slaveof ")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(upstream: Option<SocketAddr>) -> String {
        let parameters = BTreeMap::from([
            ("save".to_owned(), vec!["900 1".to_owned(), "300 10".to_owned()]),
            ("appendonly".to_owned(), vec!["yes".to_owned()]),
            ("min-replicas-to-write".to_owned(), vec!["1".to_owned()]),
            ("repl-backlog-size".to_owned(), vec!["128mb".to_owned()]),
        ]);
        redis_conf(
            &parameters,
            "127.0.0.1:7000".parse().expect("a literal"),
            Path::new("/var/lib/redis a"),
            Path::new("/var/log/redis.log"),
            &Secret::new("a\"b\\c"),
            upstream,
        )
    }

    #[test]
    fn every_start_is_fenced_whatever_the_parameters_say() {
        for text in [made(None), made("127.0.0.1:7001".parse().ok())] {
            let fences: Vec<_> =
                text.lines().filter(|line| line.starts_with("min-replicas-to-write")).collect();
            assert_eq!(fences, ["min-replicas-to-write 99"]);
            assert!(text.contains("min-replicas-max-lag 10\n"));
        }
    }

    #[test]
    fn values_are_lines_and_words_are_quoted() {
        let text = made("127.0.0.1:7001".parse().ok());
        assert!(text.contains("save 900 1\nsave 300 10\n"));
        assert!(text.contains("dir \"/var/lib/redis a\"\n"));
        assert!(text.contains("requirepass \"a\\\"b\\\\c\"\n"));
        assert!(text.contains("replicaof 127.0.0.1 7001\n"));
        assert!(text.contains("repl-backlog-size 128mb") && !text.contains("64mb"));
        assert!(!made(None).contains("replicaof"));
    }
}
