//! What one Sentinel says of the datastore: `SENTINEL MASTER`, `SENTINEL SENTINELS` and
//! `SENTINEL MYID` (sentinel.c, addReplySentinelRedisInstance).

use std::net::SocketAddr;

use redis::Value;

use crate::reply::{fields, parts, text};

/// One Sentinel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentinelState {
    /// Its own id.
    pub id: String,
    /// The master it names. While a failover of its own is under way this is still the old one.
    pub ip: String,
    pub port: u16,
    pub config_epoch: u64,
    pub flags: String,
    pub quorum: Option<u64>,
    pub peer_count: Option<u64>,
    pub replica_count: Option<u64>,
    /// For how long it has found the master down.
    pub down_for_ms: Option<u64>,
    /// The other Sentinels it knows.
    pub peers: Vec<Identity>,
}

/// By what Sentinels know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub ip: String,
    pub port: u16,
    pub id: String,
}

impl SentinelState {
    /// From the answers to the three questions, in that order.
    pub fn read(replies: &[Value]) -> Option<Self> {
        let [master, sentinels, id, ..] = replies else { return None };
        let mut state = Self::read_master(master)?;
        state.id = text(id)?;
        state.peers = parts(sentinels)
            .iter()
            .filter_map(|peer| {
                let peer = fields(peer);
                let id = peer.get("runid").filter(|id| id.len() == 40)?;
                Some(Identity {
                    ip: peer.get("ip")?.clone(),
                    port: peer.get("port")?.parse().ok()?,
                    id: id.clone(),
                })
            })
            .collect();
        Some(state)
    }

    /// From the answer to `SENTINEL MASTER` alone; id and peers stay empty.
    pub fn read_master(master: &Value) -> Option<Self> {
        let fields = fields(master);
        let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok());
        Some(SentinelState {
            id: String::new(),
            ip: fields.get("ip")?.clone(),
            port: fields.get("port")?.parse().ok()?,
            config_epoch: number("config-epoch")?,
            flags: fields.get("flags").cloned().unwrap_or_default(),
            quorum: number("quorum"),
            peer_count: number("num-other-sentinels"),
            replica_count: number("num-slaves"),
            down_for_ms: number("s-down-time"),
            peers: Vec::new(),
        })
    }

    /// Whether it names this master.
    pub fn names(&self, master: SocketAddr) -> bool {
        self.port == master.port() && self.ip == master.ip().to_string()
    }

    /// Whether a failover of its own is under way.
    pub fn is_failing_over(&self) -> bool {
        self.flags.split(',').any(|flag| flag == "failover_in_progress")
    }
}
