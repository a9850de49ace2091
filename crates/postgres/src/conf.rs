//! The text of `postgresql.conf` and of the included `tier0.conf`.
//!
//! Both nodes get the same settings since roles swap. What changes with the role is in
//! `tier0.conf` alone. Leaves out writing the files (see `configure`) and `pg_hba.conf`.

use std::collections::BTreeMap;
use std::path::Path;

use tier0_config::NodeSettings;
use tier0_core::observe::ProtectionMode;
use tier0_core::words::{NodeId, Region, SyncName};

use crate::conninfo;
use crate::quote;
use crate::settings::Checked;

/// First line of each file that the adapter writes.
const HEADER: &str = "# Written by tier0; a change made here is lost.\n";

/// Settings that change with the role; everything else is the same on every node.
const OF_THE_ROLE: [&str; 3] =
    ["synchronous_standby_names", "primary_conninfo", "primary_slot_name"];

/// Never set, wherever a value comes from. Another file of rules would open the doors that are
/// kept closed until the proof (P8), a recovery target would end a standby's recovery without an
/// order (P3), and an archive library would take the place of the archive command.
const NEVER: [&str; 14] = [
    "archive_library",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Used unless the configuration's `parameters` say otherwise.
const DEFAULTS: [(&str, &str); 12] = [
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    // A rewind needs WAL back to the last checkpoint before the fork (research: with the default
    // of 0 crash recovery recycled it and the rewind failed).
    ("wal_keep_size", "512MB"),
    ("max_slot_wal_keep_size", "4GB"),
    // With the default of 5 s a standby that lost its stream looks again only after 5 s (P7).
    ("wal_retrieve_retry_interval", "100ms"),
    // The default of 60 s keeps the slot of a vanished standby busy for as long.
    ("wal_sender_timeout", "10s"),
    ("wal_receiver_timeout", "10s"),
    ("log_line_prefix", "%m [%p] %q%u@%d/%a "),
    ("lc_messages", "C.UTF-8"),
    ("log_checkpoints", "on"),
];

/// What the safety rules need, whatever the configuration says.
fn required(node: &Checked) -> BTreeMap<&'static str, String> {
    let on = || "on".to_owned();
    BTreeMap::from([
        ("listen_addresses", node.own.address.ip().to_string()),
        ("port", node.own.address.port().to_string()),
        ("unix_socket_directories", node.paths.socket.display().to_string()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("password_encryption", "scram-sha-256".to_owned()),
        ("synchronous_commit", on()),
        ("fsync", on()),
        // Both are conditions of pg_rewind.
        ("full_page_writes", on()),
        ("wal_log_hints", on()),
        // Only the agent starts a data server, and only with permission (P8).
        ("restart_after_crash", "off".to_owned()),
        ("archive_mode", on()),
        ("archive_command", archive_command(&node.paths.archive)),
        ("restore_command", restore_command(node.settings.nodes.values())),
        ("recovery_target_timeline", "latest".to_owned()),
        ("cluster_name", node.settings.node.to_string()),
        // The log goes to the file that the agent gave as standard error.
        ("log_destination", "stderr".to_owned()),
        ("logging_collector", "off".to_owned()),
    ])
}

/// Required settings that an adopted server keeps as its operator wrote them: where and how it
/// listens, archives and logs.
const OF_THE_OPERATOR: [&str; 10] = [
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "unix_socket_permissions",
    "password_encryption",
    "archive_mode",
    "archive_command",
    "cluster_name",
    "log_destination",
    "logging_collector",
];

/// What an adopted server's `tier0.conf` says besides the role: it is included last, so it wins
/// over the operator's `postgresql.conf`.
fn adopted_settings(node: &Checked) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<String, String> = required(node)
        .into_iter()
        .filter(|(key, _)| !OF_THE_OPERATOR.contains(key))
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    for (key, value) in &node.settings.postgres.parameters {
        let key = key.to_ascii_lowercase();
        // An operator's own way to fetch WAL knows more than a look through directories.
        let may = !OF_THE_OPERATOR.contains(&key.as_str())
            && (!settings.contains_key(&key) || key == "restore_command");
        if is_setting_name(&key) && !is_of_the_role(&key) && !is_never_set(&key) && may {
            settings.insert(key, value.clone());
        }
    }
    settings
}

/// The line that an adopted server's `postgresql.conf` ends with.
pub(crate) const INCLUDE: &str = "include_if_exists 'tier0.conf'";

/// An operator's `postgresql.conf` with the include as its last setting; nothing else changes.
pub(crate) fn including(text: &str) -> String {
    let last = text.lines().rev().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'));
    if last == Some(INCLUDE) {
        return text.to_owned();
    }
    let mut whole: String =
        text.lines().filter(|line| line.trim() != INCLUDE).flat_map(|line| [line, "\n"]).collect();
    whole.push_str("# tier0's settings must come last.\n");
    whole.push_str(INCLUDE);
    whole.push('\n');
    whole
}

/// The whole of `postgresql.conf`.
pub(crate) fn postgresql_conf(node: &Checked) -> String {
    let mut settings: BTreeMap<String, String> =
        DEFAULTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    for (key, value) in &node.settings.postgres.parameters {
        if is_setting_name(key) && !is_of_the_role(key) && !is_never_set(key) {
            settings.insert(key.to_ascii_lowercase(), value.clone());
        }
    }
    for (key, value) in required(node) {
        settings.insert(key.to_owned(), value);
    }
    let mut text = HEADER.to_owned();
    for (key, value) in settings {
        text.push_str(&line(&key, &value));
    }
    text.push_str("include 'tier0.conf'\n");
    text
}

/// What a node's `tier0.conf` makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoleConf<'a> {
    /// A primary whose commits wait for this rule; empty: for nobody.
    Primary {
        /// The value of `synchronous_standby_names`.
        rule: String,
    },
    /// A standby of a node under a name. Its own sync names have the value already that they must
    /// have after a promotion, so that nothing needs a reload then (P7).
    Standby {
        /// Whom it follows.
        upstream: &'a NodeSettings,
        /// Under which name of the takeover set; under the join name where it is in none.
        ///
        /// A member looks for WAL in no archive: it has all that was acknowledged, and its promotion would
        /// run the command five times before it takes writes (`xlogrecovery.c`, `timeline.c`), or hang in
        /// it. Who is none may have been away for longer than its slot keeps WAL.
        member: Option<&'a SyncName>,
    },
}

impl RoleConf<'_> {
    /// The whole of `tier0.conf`.
    pub(crate) fn text(&self, node: &Checked) -> String {
        let [names, conninfo, slot] = OF_THE_ROLE;
        let mut text = HEADER.to_owned();
        if node.own.adopted.is_some() {
            for (key, value) in adopted_settings(node) {
                text.push_str(&line(&key, &value));
            }
        }
        match self {
            RoleConf::Primary { rule } => text.push_str(&line(names, rule)),
            RoleConf::Standby { upstream, member } => {
                text.push_str(&line(names, &rule_alone(node, &upstream.region)));
                if member.is_some() {
                    text.push_str(&line("restore_command", ""));
                }
                let join_name = || node.settings.node.join_name();
                let application_name = member.map_or_else(join_name, SyncName::to_string);
                let streaming = conninfo::streaming(node, upstream, &application_name);
                text.push_str(&line(conninfo, &streaming));
                text.push_str(&line(slot, &node.settings.node.slot_name()));
            }
        }
        text
    }
}

/// The value of `synchronous_standby_names` under which commits wait for exactly this member (P2).
pub(crate) fn rule(name: &SyncName) -> String {
    rule_for(&name.to_string())
}

/// The same while there is no standby: commits wait for nobody, or for somebody in the other region
/// who is not there yet (P9).
pub(crate) fn rule_alone(node: &Checked, other: &Region) -> String {
    match node.settings.postgres.protection {
        ProtectionMode::MaxAvailability => String::new(),
        ProtectionMode::MaxProtection => {
            let other = NodeId::new(node.settings.node.datastore().clone(), other.clone());
            rule(&SyncName::nobody(other))
        }
    }
}

/// The same for a name that is no membership.
pub(crate) fn rule_for(name: &str) -> String {
    format!("FIRST 1 ({})", quote::identifier(name))
}

/// `postgresql.auto.conf` without what would override tier0's settings; it is read last.
pub(crate) fn cleaned_auto_conf(node: &Checked, text: &str) -> String {
    text.lines()
        .filter(|line| {
            let key = line.split(['=', ' ', '\t']).next().unwrap_or("").to_ascii_lowercase();
            !overrides(node, &key)
        })
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Whether a setting in `postgresql.auto.conf` would override one of tier0's.
pub(crate) fn overrides(node: &Checked, key: &str) -> bool {
    if is_never_set(key) {
        return true;
    }
    if node.own.adopted.is_some() {
        return is_of_the_role(key) || adopted_settings(node).contains_key(key);
    }
    required(node).contains_key(key)
        || is_of_the_role(key)
        || node.settings.postgres.parameters.contains_key(key)
        || DEFAULTS.iter().any(|(name, _)| *name == key)
}

fn line(key: &str, value: &str) -> String {
    format!("{key} = {}\n", quote::conf_value(value))
}

fn is_of_the_role(key: &str) -> bool {
    OF_THE_ROLE.iter().any(|name| name.eq_ignore_ascii_case(key))
}

fn is_never_set(key: &str) -> bool {
    NEVER.iter().any(|name| name.eq_ignore_ascii_case(key))
}

fn is_setting_name(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
        && !key.eq_ignore_ascii_case("include")
        && !key.eq_ignore_ascii_case("include_dir")
        && !key.eq_ignore_ascii_case("include_if_exists")
}

/// Puts a segment into this node's own archive: whole, flushed, never over a different one. The
/// same content again is success, since a crash may come between archiving and its note. The
/// stop of a server archives a segment that is mostly zeros: those are left out of the file, or
/// the flush of 16 MB would prolong every stop (GNU cp).
fn archive_command(archive: &Path) -> String {
    let file = format!("{}/%f", quote::shell_word(&archive.display().to_string()));
    format!(
        "if test -f {file}; then cmp -s \"%p\" {file}; \
         else cp --sparse=always \"%p\" {file}.part && sync {file}.part && mv {file}.part {file}; fi"
    )
}

/// Looks through every node's archive: a promoted standby may need what the old primary archived.
fn restore_command<'a>(nodes: impl Iterator<Item = &'a NodeSettings>) -> String {
    let directories: Vec<_> = nodes
        .filter_map(|node| node.archive_directory.as_ref())
        .map(|archive| quote::shell_word(&archive.display().to_string()))
        .collect();
    format!(
        "for d in {}; do test -f \"$d/%f\" && exec cp \"$d/%f\" \"%p\"; done; exit 1",
        directories.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PostgresNodeSettings;

    fn node(parameters: &[(&str, &str)]) -> Checked {
        let datastore = |region: &str, ip: &str| NodeSettings {
            region: region.parse().unwrap(),
            address: format!("{ip}:5432").parse().unwrap(),
            data_directory: format!("/t/{region}/it's/data").into(),
            archive_directory: Some(format!("/t/{region}/it's/100%/archive").into()),
            log_file: "/t/log".into(),
            backup_stamp_file: None,
            backup_command: None,
            adopted: None,
        };
        let nodes = BTreeMap::from([
            ("main.region1".parse().unwrap(), datastore("region1", "127.0.1.1")),
            ("main.region2".parse().unwrap(), datastore("region2", "127.0.2.1")),
        ]);
        let postgres = tier0_config::PostgresSettings {
            bin_directory: "/bin".into(),
            admin_user: "admin".into(),
            replication_user: "o'stream".into(),
            replication_password_file: std::path::PathBuf::from("/s").into(),
            database: "db".into(),
            application_user: "app".into(),
            application_password_file: std::path::PathBuf::from("/s").into(),
            client_networks: vec!["127.0.0.0/8".to_owned()],
            parameters: parameters
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            protection: ProtectionMode::MaxAvailability,
        };
        let settings = PostgresNodeSettings::new(
            "main.region1".parse().unwrap(),
            nodes,
            postgres,
            tier0_config::Secret::new("never-shown"),
        );
        Checked::new(settings).unwrap()
    }

    #[test]
    fn parameters_win_over_defaults_and_lose_to_safety() {
        let node = node(&[
            ("wal_keep_size", "1GB"),
            ("fsync", "off"),
            ("synchronous_standby_names", "*"),
            ("work_mem", "o'clock\nfsync = off"),
            ("fsync = off #", "x"),
            ("HBA_file", "/tmp/open"),
        ]);
        let text = postgresql_conf(&node);
        assert!(text.contains("wal_keep_size = '1GB'\n"));
        assert!(text.contains("\nfsync = 'on'\n"));
        assert!(!text.contains("\nfsync = off"));
        assert!(!text.contains("synchronous_standby_names"));
        assert!(!text.to_lowercase().contains("hba_file"));
        assert!(text.ends_with("include 'tier0.conf'\n"));
        assert!(!text.contains("never-shown"));
    }

    #[test]
    fn role_conf_names_quotes_and_holds_no_password() {
        let node = node(&[]);
        let upstream = node.peers().next().unwrap().1;
        let standby = |member| RoleConf::Standby { upstream, member }.text(&node);
        let own: SyncName = "main.region1#7".parse().unwrap();
        let text = standby(None);
        assert!(!text.contains("restore_command"));
        assert!(standby(Some(&own)).contains("restore_command = ''\n"));
        assert!(text.contains("synchronous_standby_names = ''\n"));
        assert!(text.contains(r"user=''o\\''stream''"), "{text}");
        assert!(!text.contains("never-shown"));
        let name: SyncName = "main.region2#7".parse().unwrap();
        let text = RoleConf::Primary { rule: rule(&name) }.text(&node);
        assert!(text.contains(r#"= 'FIRST 1 ("main.region2#7")'"#));
    }

    #[test]
    fn shell_commands_keep_paths_whole() {
        let text = archive_command(Path::new("/it's/100%"));
        assert!(text.starts_with(r"if test -f '/it'\''s/100%%'/%f; then"), "{text}");
    }

    #[test]
    fn an_operators_file_gets_one_include_at_its_end() {
        let once = including("port = 5433\n#x");
        assert!(once.starts_with("port = 5433\n#x\n") && once.ends_with(&format!("{INCLUDE}\n")));
        assert_eq!(including(&once), once);
        let again = including(&format!("{once}fsync = off\n"));
        assert_eq!(again.matches(INCLUDE).count(), 1);
        assert!(again.ends_with(&format!("{INCLUDE}\n")));
    }

    #[test]
    fn an_adopted_server_keeps_what_is_its_operators() {
        let mut node = node(&[("restore_command", "fetch %f %p"), ("port", "1")]);
        node.own.adopted = Some(tier0_config::AdoptedSettings {
            config_directory: "/etc/pg".into(),
            socket_directory: "/run/pg".into(),
        });
        let text = RoleConf::Primary { rule: String::new() }.text(&node);
        assert!(text.contains("restart_after_crash = 'off'\n"));
        assert!(text.contains("restore_command = 'fetch %f %p'\n"));
        for name in ["listen_addresses", "archive_", "unix_socket", "max_wal_senders"] {
            assert!(!text.contains(name), "{name}");
        }
        assert_eq!(
            cleaned_auto_conf(&node, "fsync = off\narchive_mode = on\n"),
            "archive_mode = on\n"
        );
    }

    #[test]
    fn what_overrides_goes_and_what_does_not_stays() {
        let node = node(&[("shared_buffers", "1GB")]);
        let text = "# x\nprimary_conninfo = 'a'\nshared_buffers = '2GB'\nwork_mem = '9MB'\n";
        assert_eq!(cleaned_auto_conf(&node, text), "# x\nwork_mem = '9MB'\n");
    }
}
