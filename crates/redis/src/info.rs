//! `INFO`, as far as tier0 reads it (server.c, genRedisInfoString). A field that is absent or not a
//! number is absent here; no text can make this fail.

use std::collections::BTreeMap;

use tier0_core::observe::RedisRole;
use tier0_core::words::{RedisPosition, ReplicationId};

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerInfo {
    /// `role`.
    pub role: Option<RedisRole>,
    /// `master_replid`, unless it is all zeros or not there.
    pub replication: Option<ReplicationId>,
    /// `master_repl_offset` of a master, `slave_repl_offset` of a replica.
    pub offset: Option<u64>,
    /// `master_replid2` with `second_repl_offset`: the history before the last promotion ended
    /// *before* this offset. Absent where there is none.
    pub second: Option<RedisPosition>,
    /// `master_host:master_port`.
    pub master: Option<String>,
    /// `master_link_status` is `up`.
    pub link_up: bool,
    /// `master_link_down_since_seconds`; `None` also where it never was up since the start.
    pub link_down_seconds: Option<u64>,
    /// `master_sync_in_progress`.
    pub syncing: bool,
    /// `loading` or `async_loading`.
    pub loading: bool,
    /// Keys in all databases.
    pub keys: u64,
    /// `evicted_keys`.
    pub evicted_keys: u64,
    /// Replicas whose state is `online`.
    pub replicas: u32,
    /// `used_memory`.
    pub used_memory: u64,
    /// `maxmemory`.
    pub maxmemory: u64,
    /// `redis_version`.
    pub version: Option<String>,
    /// `run_id`: another one after each start of the process.
    pub run: Option<String>,
    /// `rdb_saves`.
    pub rdb_saves: Option<u64>,
    /// `rdb_bgsave_in_progress`.
    pub bgsave_running: bool,
    /// `rdb_last_bgsave_status` is `ok`.
    pub bgsave_ok: bool,
    /// `aof_enabled`.
    pub append_only: bool,
    /// `aof_last_write_status` is not `err`.
    pub append_ok: bool,
    /// `aof_rewrite_in_progress` or `aof_rewrite_scheduled`.
    pub aof_rewriting: bool,
    /// `sync_full`: full resynchronisations given to replicas.
    pub sync_full: Option<u64>,
    /// `sync_partial_ok`: partial resynchronisations given to replicas.
    pub sync_partial: Option<u64>,
}

impl ServerInfo {
    /// Read the text of `INFO`.
    pub fn parse(text: &str) -> Self {
        let fields: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let is = |name: &str, value: &str| fields.get(name) == Some(&value);
        let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok());
        let role = match fields.get("role").copied() {
            Some("master") => Some(RedisRole::Master),
            Some("slave") => Some(RedisRole::Replica),
            Some(_) | None => None,
        };
        let second = history(fields.get("master_replid2").copied())
            .zip(number("second_repl_offset"))
            .map(|(replication, offset)| RedisPosition { replication, offset });
        let listed = |prefix: &'static str| {
            fields.iter().filter(move |(name, _)| {
                name.strip_prefix(prefix).is_some_and(|rest| {
                    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
                })
            })
        };
        let keys = listed("db")
            .filter_map(|(_, value)| part(value, "keys")?.parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        let replicas = listed("slave").filter(|(_, v)| part(v, "state") == Some("online")).count();
        ServerInfo {
            role,
            replication: history(fields.get("master_replid").copied()),
            offset: match role {
                Some(RedisRole::Replica) => number("slave_repl_offset"),
                Some(RedisRole::Master) | None => number("master_repl_offset"),
            },
            second,
            master: fields
                .get("master_host")
                .zip(fields.get("master_port"))
                .map(|(host, port)| format!("{host}:{port}")),
            link_up: is("master_link_status", "up"),
            link_down_seconds: number("master_link_down_since_seconds"),
            syncing: is("master_sync_in_progress", "1"),
            loading: is("loading", "1") || is("async_loading", "1"),
            keys,
            evicted_keys: number("evicted_keys").unwrap_or(0),
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            used_memory: number("used_memory").unwrap_or(0),
            maxmemory: number("maxmemory").unwrap_or(0),
            version: fields.get("redis_version").map(|&version| version.to_owned()),
            run: fields.get("run_id").map(|&run| run.to_owned()),
            rdb_saves: number("rdb_saves"),
            bgsave_running: is("rdb_bgsave_in_progress", "1"),
            bgsave_ok: is("rdb_last_bgsave_status", "ok"),
            append_only: is("aof_enabled", "1"),
            append_ok: !is("aof_last_write_status", "err"),
            aof_rewriting: is("aof_rewrite_in_progress", "1") || is("aof_rewrite_scheduled", "1"),
            sync_full: number("sync_full"),
            sync_partial: number("sync_partial_ok"),
        }
    }

    /// The position, where both halves of it are known.
    pub fn position(&self) -> Option<RedisPosition> {
        Some(RedisPosition { replication: self.replication.clone()?, offset: self.offset? })
    }

    /// Up to which offset this server's data agrees with the history `replication`, if it is or
    /// was part of it.
    pub fn covers(&self, replication: &ReplicationId) -> Option<u64> {
        if self.replication.as_ref() == Some(replication) {
            return self.offset;
        }
        let second = self.second.as_ref()?;
        // second_repl_offset is the first offset that is no longer part of the old history
        // (replication.c, shiftReplicationId).
        (second.replication == *replication).then(|| second.offset.saturating_sub(1))
    }
}

/// A replication id that means something: 40 characters that are not all zeros.
fn history(text: Option<&str>) -> Option<ReplicationId> {
    let text = text?;
    let known = text.len() == 40
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte != b'0');
    known.then(|| ReplicationId(text.to_owned()))
}

/// One value of a list like `keys=1,expires=0`.
fn part<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(',')
        .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: &str = "# Server\r\nredis_version:7.0.15\r\nloading:0\r\n\
        role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
        master_sync_in_progress:0\r\nslave_repl_offset:1234\r\nmaster_repl_offset:99\r\n\
        master_replid:8f1f0b0e6c8a4d3b2a1908f7e6d5c4b3a2918070\r\n\
        master_replid2:0000000000000000000000000000000000000000\r\nsecond_repl_offset:-1\r\n\
        slave0:ip=1.2.3.4,port=6379,state=online,offset=1,lag=0\r\n\
        slave_read_only:1\r\ndb0:keys=7,expires=1,avg_ttl=0\r\ndb3:keys=5,expires=0,avg_ttl=0\r\n";

    #[test]
    fn a_replica_is_read() {
        let info = ServerInfo::parse(REPLICA);
        assert_eq!(info.role, Some(RedisRole::Replica));
        assert_eq!(info.offset, Some(1234));
        assert_eq!(info.second, None);
        assert_eq!(info.master.as_deref(), Some("127.0.0.1:6379"));
        assert_eq!((info.keys, info.replicas), (12, 1));
        assert!(info.link_up && !info.loading && !info.syncing);
    }

    #[test]
    fn the_older_history_ends_before_the_second_offset() {
        let text = "role:master\nmaster_repl_offset:500\n\
            master_replid:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\
            master_replid2:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\nsecond_repl_offset:401\n";
        let info = ServerInfo::parse(text);
        assert_eq!(info.covers(&ReplicationId("b".repeat(40))), Some(400));
        assert_eq!(info.covers(&ReplicationId("a".repeat(40))), Some(500));
        assert_eq!(info.covers(&ReplicationId("c".repeat(40))), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let _ = ServerInfo::parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_values_are_survived(value in "\\PC{0,60}") {
            for name in ["role", "master_replid", "master_replid2", "second_repl_offset", "db0",
                "slave0", "master_repl_offset", "used_memory"] {
                let _ = ServerInfo::parse(&format!("role:master\r\n{name}:{value}\r\n"));
            }
        }
    }
}
