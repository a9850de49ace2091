//! The `sentinel.conf` a Sentinel is first started with. Afterwards the file is Sentinel's own: it
//! writes its id, its peers and every change into it.

use std::net::SocketAddr;
use std::path::Path;

use tier0_config::Secret;

/// What a Sentinel has to be told.
#[derive(Debug)]
pub struct SentinelConf<'a> {
    /// Where it listens, and how the others reach it.
    pub address: SocketAddr,
    /// Its directory; must exist.
    pub directory: &'a Path,
    /// Its log.
    pub log_file: &'a Path,
    /// Its pid file.
    pub pid_file: &'a Path,
    /// The name of the datastore among Sentinels.
    pub master_name: &'a str,
    /// The master to begin with.
    pub master: SocketAddr,
    /// The data servers' password. Without white space, quotes and backslashes: Sentinel writes it
    /// back unquoted (sentinel.c, rewriteConfigSentinelOption) and would not start a second time.
    pub password: &'a Secret,
    /// How many Sentinels must find the master down. Raised at run time by
    /// [`crate::RedisNode::take_authority`].
    pub quorum: u32,
    /// `down-after-milliseconds`. Not below 3000: the new master of a switch may otherwise count
    /// as down before it was asked for the first time.
    pub down_after_ms: u64,
    /// `failover-timeout` in milliseconds; a vote locks for twice as long.
    pub failover_timeout_ms: u64,
}

/// The text of `sentinel.conf`, with the specification's settings. It holds the data servers'
/// password, so keep it in a file of mode 0600; the Sentinel itself has none and is to be reached
/// from the stack's hosts alone.
pub fn sentinel_conf(conf: &SentinelConf<'_>) -> String {
    let name = conf.master_name;
    let (ip, port) = (conf.address.ip(), conf.address.port());
    format!(
        "port {port}\n\
         bind {ip}\n\
         dir \"{directory}\"\n\
         logfile \"{log_file}\"\n\
         pidfile \"{pid_file}\"\n\
         sentinel announce-ip {ip}\n\
         sentinel announce-port {port}\n\
         sentinel monitor {name} {master_ip} {master_port} {quorum}\n\
         sentinel auth-pass {name} {password}\n\
         sentinel down-after-milliseconds {name} {down_after}\n\
         sentinel parallel-syncs {name} 1\n\
         sentinel failover-timeout {name} {failover_timeout}\n",
        directory = conf.directory.display(),
        log_file = conf.log_file.display(),
        pid_file = conf.pid_file.display(),
        master_ip = conf.master.ip(),
        master_port = conf.master.port(),
        quorum = conf.quorum,
        password = crate::conf::quoted(conf.password.expose()),
        down_after = conf.down_after_ms,
        failover_timeout = conf.failover_timeout_ms,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_settings_are_in_it() {
        let text = sentinel_conf(&SentinelConf {
            address: "127.0.0.1:26379".parse().expect("a literal"),
            directory: Path::new("/tmp/s"),
            log_file: Path::new("/tmp/s/log"),
            pid_file: Path::new("/tmp/s/pid"),
            master_name: "tier0master",
            master: "127.0.0.1:6379".parse().expect("a literal"),
            password: &Secret::new("tier0redis"),
            quorum: 2,
            down_after_ms: 5000,
            failover_timeout_ms: 10_000,
        });
        for line in [
            "sentinel monitor tier0master 127.0.0.1 6379 2",
            "sentinel auth-pass tier0master \"tier0redis\"",
            "sentinel down-after-milliseconds tier0master 5000",
            "sentinel parallel-syncs tier0master 1",
            "sentinel failover-timeout tier0master 10000",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
        }
    }
}
