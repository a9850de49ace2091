//! The specification's settings, on every node, whatever role it has at the moment: after the
//! stack came up, after a failover, and after the failback.
//!
//! One table. A line whose value is not the specification's says why.

use std::collections::HashMap;

use crate::stack::{
    RECOVERY, Sentinel, Stack, acknowledged, admin, postgres as session, redis, shared, until,
};

/// Where a setting is looked up.
enum At {
    /// `pg_settings`, the value as `current_setting` prints it.
    Postgres,
    /// `CONFIG GET`.
    Redis,
    /// `SENTINEL MASTER`.
    Sentinel,
}

/// What is to be there.
enum Is {
    /// As specified.
    Specified,
    /// Something else, and why.
    Instead(&'static str, &'static str),
    /// Whatever fits, on the writer's node and on the other one, and why.
    Fits { writer: fn(&str) -> bool, other: fn(&str) -> bool, why: &'static str },
}

struct Line {
    at: At,
    name: &'static str,
    specified: &'static str,
    is: Is,
}

const fn postgres(name: &'static str, specified: &'static str, is: Is) -> Line {
    Line { at: At::Postgres, name, specified, is }
}

const fn in_redis(name: &'static str, specified: &'static str, is: Is) -> Line {
    Line { at: At::Redis, name, specified, is }
}

const fn sentinel(name: &'static str, specified: &'static str, is: Is) -> Line {
    Line { at: At::Sentinel, name, specified, is }
}

const TAKEN: &str = "a server that has the port on every address of the machine keeps it";

const PLACE: &str = "each node of a lab has its own address on one machine";

const TABLE: &[Line] = &[
    postgres("wal_level", "replica", Is::Specified),
    postgres("max_wal_senders", "10", Is::Specified),
    postgres("max_replication_slots", "10", Is::Specified),
    postgres("synchronous_commit", "on", Is::Specified),
    postgres(
        "synchronous_standby_names",
        "postgres-replica",
        Is::Fits {
            writer: |value| value.starts_with("FIRST 1 (\"main.region"),
            other: |value| value.is_empty() || value.starts_with("FIRST 1 (\"main.region"),
            why: "a name serves one membership, or a standby that was away would count at once",
        },
    ),
    postgres("checkpoint_timeout", "15min", Is::Specified),
    postgres("checkpoint_completion_target", "0.9", Is::Specified),
    postgres("max_wal_size", "4GB", Is::Specified),
    postgres("min_wal_size", "80MB", Is::Specified),
    postgres(
        "listen_addresses",
        "*",
        Is::Fits { writer: is_loopback, other: is_loopback, why: PLACE },
    ),
    postgres(
        "port",
        "5432",
        Is::Fits { writer: is_5432_where_free, other: is_5432_where_free, why: TAKEN },
    ),
    postgres("hot_standby", "on", Is::Specified),
    postgres("hot_standby_feedback", "on", Is::Specified),
    postgres("max_standby_streaming_delay", "30s", Is::Specified),
    postgres(
        "primary_conninfo",
        "host=postgres port=5432 user=replication_user password=repl_password",
        Is::Fits {
            writer: |_| true,
            other: |value| {
                value.contains("replication_user")
                    && !value.contains("password=")
                    && value.contains("passfile")
            },
            why: "the password is in a file that only the server may read",
        },
    ),
    postgres(
        "primary_slot_name",
        "replication_slot",
        Is::Fits {
            writer: |_| true,
            other: |value| !value.is_empty(),
            why: "roles swap: each node keeps a slot for the other, so slots carry their names",
        },
    ),
    postgres(
        "restore_command",
        "cp /var/lib/postgresql/archive/%f %p",
        Is::Fits {
            writer: |_| true,
            other: |value| value.is_empty() || value.contains("%f") && value.contains("%p"),
            why: "all nodes' archives are looked through by who catches up; a member has everything, and \
                  its promotion would run the command five times, or hang in it",
        },
    ),
    postgres("wal_log_hints", "off", Is::Instead("on", "a rewind needs it")),
    postgres("fsync", "on", Is::Specified),
    postgres("full_page_writes", "on", Is::Specified),
    postgres(
        "restart_after_crash",
        "on",
        Is::Instead("off", "PostgreSQL would let clients in before it is proven that commits wait"),
    ),
    in_redis(
        "replica-read-only",
        "no",
        Is::Instead("yes", "only a replica obeys it, and roles swap"),
    ),
    in_redis("save", "900 1 300 10 60 10000", Is::Specified),
    in_redis("appendonly", "yes", Is::Specified),
    in_redis("appendfilename", "appendonly.aof", Is::Specified),
    in_redis("appendfsync", "everysec", Is::Specified),
    in_redis("maxmemory", "2147483648", Is::Specified),
    in_redis(
        "maxmemory-policy",
        "allkeys-lru",
        Is::Instead("noeviction", "an acknowledged write that is evicted is lost"),
    ),
    in_redis("bind", "0.0.0.0", Is::Fits { writer: is_loopback, other: is_loopback, why: PLACE }),
    in_redis(
        "port",
        "6379",
        Is::Fits { writer: is_6379_where_free, other: is_6379_where_free, why: TAKEN },
    ),
    in_redis("protected-mode", "yes", Is::Specified),
    in_redis(
        "requirepass",
        "tier0redis",
        Is::Fits { writer: is_made_up, other: is_made_up, why: "made anew for each stack" },
    ),
    in_redis(
        "masterauth",
        "tier0redis",
        Is::Fits { writer: is_made_up, other: is_made_up, why: "made anew for each stack" },
    ),
    sentinel("name", "tier0master", Is::Specified),
    sentinel(
        "quorum",
        "1",
        Is::Fits {
            writer: |value| value.parse::<u32>().is_ok_and(|quorum| quorum > 3),
            other: |_| true,
            why: "configured 2; raised at run time so that Sentinels never act by themselves",
        },
    ),
    sentinel("down-after-milliseconds", "5000", Is::Specified),
    sentinel("parallel-syncs", "1", Is::Specified),
    sentinel("failover-timeout", "10000", Is::Specified),
];

fn is_loopback(value: &str) -> bool {
    value.starts_with("127.")
}

fn is_5432_where_free(value: &str) -> bool {
    value == "5432" || is_taken_everywhere(5432)
}

fn is_6379_where_free(value: &str) -> bool {
    value == "6379" || is_taken_everywhere(6379)
}

/// No lab has this address: only a server on every address is in the way there.
fn is_taken_everywhere(port: u16) -> bool {
    std::net::TcpListener::bind(("127.77.77.77", port)).is_err()
}

fn is_made_up(value: &str) -> bool {
    value.len() >= 32 && value != "tier0redis"
}

/// Why a value is not what the table says, if it is not.
fn judge(line: &Line, place: &str, is_writer: bool, value: Option<&str>) -> Option<String> {
    let Some(value) = value else { return Some(format!("{place} has no {}", line.name)) };
    let (fits, expected) = match line.is {
        Is::Specified => (value == line.specified, line.specified),
        Is::Instead(instead, _) => (value == instead, instead),
        Is::Fits { writer, .. } if is_writer => (writer(value), "something else"),
        Is::Fits { other, .. } => (other(value), "something else"),
    };
    (!fits).then(|| format!("{} on {place} is {value:?}, should be {expected:?}", line.name))
}

/// Every deviation from the table, everywhere.
async fn deviations(stack: &Stack, writer: &str) -> Vec<String> {
    let mut found = Vec::new();
    for region in ["region1", "region2"] {
        let node = format!("main.{region}");
        let rows = admin(
            stack,
            &node,
            "SELECT name || '=' || coalesce(current_setting(name), '') FROM pg_settings",
        )
        .unwrap();
        let has: HashMap<&str, &str> = rows.iter().filter_map(|row| row.split_once('=')).collect();
        let lines = TABLE.iter().filter(|line| matches!(line.at, At::Postgres));
        found.extend(
            lines.filter_map(|line| {
                judge(line, &node, region == writer, has.get(line.name).copied())
            }),
        );

        let node = format!("cache.{region}");
        let mut session = redis(stack, &node).await.unwrap();
        let has: HashMap<String, String> =
            ::redis::cmd("CONFIG").arg("GET").arg("*").query_async(&mut session).await.unwrap();
        let lines = TABLE.iter().filter(|line| matches!(line.at, At::Redis));
        found.extend(lines.filter_map(|line| {
            judge(line, &node, region == writer, has.get(line.name).map(String::as_str))
        }));
    }
    for one in Sentinel::all(stack) {
        let has: HashMap<String, String> = one.ask(&["master", "tier0master"]).await.unwrap();
        let lines = TABLE.iter().filter(|line| matches!(line.at, At::Sentinel));
        found.extend(lines.filter_map(|line| {
            judge(line, &one.site, true, has.get(line.name).map(String::as_str))
        }));
    }
    found
}

/// Who may connect, as the server itself reads its `pg_hba.conf`: what is wrong with it.
fn access(stack: &Stack) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', type, array_to_string(database, ','), \
               array_to_string(user_name, ','), address, netmask, auth_method, error) \
               FROM pg_hba_file_rules";
    let mut found = Vec::new();
    for region in ["region1", "region2"] {
        let rules = admin(stack, &format!("main.{region}"), sql).unwrap();
        for rule in &rules {
            let words: Vec<&str> = rule.split(' ').collect();
            let by = words.last().copied().unwrap_or_default();
            let fits = match words.first() {
                Some(&"local") => by == "peer",
                // An address, never everybody.
                Some(_) => by == "scram-sha-256" && !words.contains(&"all"),
                None => false,
            };
            if !fits {
                found.push(format!("{region}: {rule}"));
            }
        }
        let has = |begin: &str| rules.iter().any(|rule| rule.starts_with(begin));
        if !has("host replication replication_user 127.") {
            found.push(format!("{region}: the other node may not stream: {rules:?}"));
        }
        if !has("host tier0_db tier0user 127.") {
            found.push(format!("{region}: clients may not connect: {rules:?}"));
        }
    }
    found
}

#[tokio::test]
async fn access_is_as_specified_and_narrower() {
    let stack = shared().await;
    assert_eq!(access(&stack), Vec::<String>::new());
    // The standby is there to be read, and takes no write.
    let standby = session(&stack, "main.region2").await.unwrap();
    standby.query("SELECT count(*) FROM device_telemetry", &[]).await.unwrap();
    let refused = acknowledged(&standby, "NOT-HERE").await.unwrap_err();
    assert!(refused.contains("read-only"), "{refused}");
}

/// Demand the table. Sentinels may take a moment to hear their quorum after a switch.
async fn holds(stack: &Stack, writer: &str) {
    until(RECOVERY, async || {
        let found = deviations(stack, writer).await;
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    })
    .await
    .unwrap_or_else(|why| panic!("with the writer in {writer}: {why}"));
}

#[test]
fn every_deviation_has_a_reason() {
    for line in TABLE {
        let why = match line.is {
            Is::Specified => continue,
            Is::Instead(_, why) | Is::Fits { why, .. } => why,
        };
        assert!(why.len() > 10, "{} is not as specified, and nobody says why", line.name);
        println!("{}: specified {}; {why}", line.name, line.specified);
    }
}

#[tokio::test]
async fn settings_are_the_specified_ones_after_up_failover_and_failback() {
    let stack = shared().await;
    holds(&stack, "region1").await;
    stack.api().failover("region2").await.succeeds();
    stack.api().protected(RECOVERY).await.unwrap();
    holds(&stack, "region2").await;
    stack.api().failover("region1").await.succeeds();
    stack.api().protected(RECOVERY).await.unwrap();
    holds(&stack, "region1").await;
}
