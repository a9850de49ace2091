//! One look at the node: process, then one query over the kept session, or the control file of a
//! server that is down. Says what was seen; a field that could not be seen stays empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use tier0_core::observe::{
    ArchiveView, ExpiringRole, PostgresFollower, PostgresRole, PostgresView, ProcessState,
};
use tier0_core::words::{Lsn, SystemId, Timeline};

use crate::base_directory::BaseDirectory;
use crate::commit_probe::speaks;
use crate::control::ClusterState;
use crate::hba::Clients;
use crate::node::Server;
use crate::process::Postmaster;
use crate::session::SessionError;
use crate::standby::Stream;

/// Everything in one statement, as one JSON value. `CASE` keeps functions that only a primary
/// answers from a standby; a promotion in between gives an error, and the next look sees it.
const LOOK: &str = r"SELECT json_build_object(
'in_recovery', pg_is_in_recovery(),
'system', (SELECT system_identifier::text FROM pg_control_system()),
'checkpoint_timeline', (SELECT timeline_id FROM pg_control_checkpoint()),
'wal_file', CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE pg_walfile_name(pg_current_wal_flush_lsn()) END,
'flushed', CASE WHEN pg_is_in_recovery()
           THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
           ELSE pg_current_wal_flush_lsn() END::text,
'replayed', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END::text,
'receiver', (SELECT json_build_object('status', status, 'timeline', received_tli::text,
             'conninfo', conninfo) FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL),
'followers', (SELECT json_agg(json_build_object('name', application_name, 'state', state,
             'sync_state', sync_state, 'flushed', flush_lsn::text, 'replayed', replay_lsn::text))
             FROM pg_stat_replication WHERE state <> 'backup'),
'clients', (SELECT json_build_object('sessions', count(*),
             'open', count(xact_start),
             'longest_ms', (extract(epoch FROM max(clock_timestamp() - xact_start)) * 1000)::bigint,
             'longest_application', (array_agg(application_name ORDER BY xact_start)
                FILTER (WHERE xact_start IS NOT NULL))[1],
             'commit_wait_ms', (extract(epoch FROM max(clock_timestamp() - state_change)
                FILTER (WHERE wait_event = 'SyncRep')) * 1000)::bigint)
             FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND application_name NOT LIKE 'tier0-%'),
'archive', (SELECT json_build_object('failed', failed_count, 'archived', archived_count,
             'archived_bytes', archived_count * pg_size_bytes(current_setting('wal_segment_size')),
             'last_failed_seconds', extract(epoch FROM now() - last_failed_time)::bigint,
             'last_archived_seconds', extract(epoch FROM now() - last_archived_time)::bigint,
             'waiting', w.count, 'oldest_waiting_seconds', w.oldest)
             FROM pg_stat_archiver, (SELECT count(*),
             extract(epoch FROM clock_timestamp() - min(modification))::bigint AS oldest
             FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') w WHERE current_setting('archive_mode') <> 'off'),
'slots', (SELECT json_object_agg(slot_name, coalesce(wal_status, 'unreserved-yet'))
             FROM pg_replication_slots),
'logical', (SELECT json_agg(slot_name ORDER BY slot_name) FROM pg_replication_slots
             WHERE slot_type = 'logical'),
'expiring', (SELECT json_build_object('role', rolname,
             'seconds', extract(epoch FROM rolvaliduntil - now())::bigint)
             FROM pg_roles WHERE rolcanlogin AND isfinite(rolvaliduntil)
             ORDER BY rolvaliduntil LIMIT 1),
'retained', (SELECT max(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
             THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, restart_lsn))::bigint
             FROM pg_replication_slots WHERE NOT active),
'overrides', (SELECT json_agg(s.item) FROM (SELECT coalesce(r.rolname, '*') || '@'
             || coalesce(d.datname, '*') || ':' || c AS item FROM pg_db_role_setting g
             LEFT JOIN pg_roles r ON r.oid = g.setrole
             LEFT JOIN pg_database d ON d.oid = g.setdatabase, unnest(g.setconfig) c
             WHERE c LIKE 'synchronous_commit=%'
             AND c NOT IN ('synchronous_commit=on', 'synchronous_commit=remote_apply')) s),
'settings', json_build_object(
SETTINGS))::text";

/// What `synchronous_commit` is for a session that sets nothing: by the files, else built in.
const SERVER_WIDE: &str = "SELECT coalesce((SELECT setting FROM pg_file_settings \
                           WHERE name = 'synchronous_commit' AND applied \
                           ORDER BY seqno DESC LIMIT 1), \
                           (SELECT boot_val FROM pg_settings WHERE name = 'synchronous_commit'))";

/// Settings that the safety argument or a check reads.
const SETTINGS: [&str; 19] = [
    "synchronous_standby_names",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
    "wal_log_hints",
    "data_checksums",
    "restart_after_crash",
    "wal_level",
    "archive_mode",
    "hot_standby",
    "wal_keep_size",
    "max_slot_wal_keep_size",
    "wal_retrieve_retry_interval",
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "server_version_num",
];

/// Under this name in the view's settings: roles and databases that weaken `synchronous_commit`,
/// comma separated; empty when there are none (P4).
const OVERRIDES: &str = "tier0.synchronous_commit_overrides";
/// Under this name in the view's settings: how long the longest waiting commit of a client has
/// waited for a standby, in milliseconds; absent while none waits (P9).
const COMMIT_WAIT: &str = "tier0.commit_wait_ms";

#[derive(Deserialize)]
struct Looked {
    in_recovery: bool,
    system: Option<String>,
    checkpoint_timeline: Option<u32>,
    wal_file: Option<String>,
    flushed: Option<Lsn>,
    replayed: Option<Lsn>,
    receiver: Option<Receiver>,
    followers: Option<Vec<Follower>>,
    clients: LookedClients,
    archive: Option<ArchiveView>,
    slots: Option<BTreeMap<String, String>>,
    logical: Option<Vec<String>>,
    expiring: Option<ExpiringRole>,
    retained: Option<i64>,
    overrides: Option<Vec<String>>,
    settings: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Receiver {
    status: Option<String>,
    timeline: Option<String>,
    conninfo: Option<String>,
}

#[derive(Deserialize)]
struct Follower {
    name: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    flushed: Option<Lsn>,
    replayed: Option<Lsn>,
}

#[derive(Deserialize)]
struct LookedClients {
    sessions: u32,
    open: u32,
    longest_ms: Option<i64>,
    longest_application: Option<String>,
    commit_wait_ms: Option<i64>,
}

fn statement() -> String {
    let value = |name: &&str| match *name {
        // The looking session has one of its own; what counts is what clients begin with.
        "synchronous_commit" => format!("'{name}', ({SERVER_WIDE})"),
        name => format!("'{name}', current_setting('{name}')"),
    };
    let settings: Vec<_> = SETTINGS.iter().map(value).collect();
    LOOK.replace("SETTINGS", &settings.join(", "))
}

/// A view in which nothing was seen.
fn blank(process: ProcessState) -> PostgresView {
    PostgresView {
        process,
        role: None,
        system: None,
        timeline: None,
        flushed: None,
        replayed: None,
        sync_names: None,
        followers: Vec::new(),
        streaming_as: None,
        clients_admitted: false,
        shut_down_cleanly: None,
        sessions: 0,
        open_transactions: 0,
        longest_transaction_ms: None,
        longest_application: None,
        retained_wal: 0,
        archive: None,
        slots: BTreeMap::new(),
        logical_slots: Vec::new(),
        expiring: None,
        disk_free: None,
        settings: BTreeMap::new(),
        version: None,
        commits: None,
        error: None,
    }
}

impl Server {
    /// One look.
    pub(crate) async fn look(&self) -> PostgresView {
        let mut view = match Postmaster::find(&self.node.paths.data) {
            Ok(Some(_)) => self.look_at_server().await,
            Ok(None) => self.look_at_data().await,
            Err(error) => {
                let mut view = blank(ProcessState::Silent);
                view.error = Some(format!("postmaster.pid: {error}"));
                view
            }
        };
        view.disk_free = self.disk_free();
        if speaks(view.process, view.role) {
            view.commits = self.probes.view();
        }
        view
    }

    fn disk_free(&self) -> Option<u64> {
        let data = &self.node.paths.data;
        let there = data.ancestors().find(|directory| directory.exists())?;
        let stat = rustix::fs::statvfs(there).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    async fn look_at_server(&self) -> PostgresView {
        let limit = self.node.settings.probe_limit;
        let asking = async {
            let session = self.looking.get(&self.node, limit).await?;
            session.planned_value(statement, limit).await
        };
        let answer = match tokio::time::timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(SessionError::Late(limit)),
        };
        let error = match answer {
            Ok(text) => match serde_json::from_str::<Looked>(&text) {
                Ok(looked) => {
                    // Keep the orders' session ready too, so that a promotion need not connect.
                    self.ordering.warm_up(&self.node, limit).await;
                    return self.view_of(looked);
                }
                Err(error) => format!("unexpected answer: {error}"),
            },
            Err(error) => {
                if !matches!(error, SessionError::Answered(_)) {
                    self.looking.forget().await;
                }
                let state = self.state_after(&error);
                let mut view = match state {
                    ProcessState::Stopped => self.look_at_data().await,
                    other => blank(other),
                };
                view.clients_admitted = self.clients() == Clients::Admitted;
                view.error = Some(error.to_string());
                return view;
            }
        };
        let mut view = blank(ProcessState::Silent);
        view.error = Some(error);
        view
    }

    /// What a server is that has a process and gave this error.
    fn state_after(&self, error: &SessionError) -> ProcessState {
        match error {
            // It may have ended while it was asked.
            SessionError::Connect(_) | SessionError::Lost(_)
                if matches!(Postmaster::find(&self.node.paths.data), Ok(None)) =>
            {
                ProcessState::Stopped
            }
            // Only its archiver is left.
            SessionError::Connect(_) | SessionError::Lost(_) if self.is_ending() => {
                ProcessState::Stopped
            }
            // It says so itself (57P03), or has no socket yet: that comes after the process.
            SessionError::Connect(_) => ProcessState::Starting,
            SessionError::Lost(_)
            | SessionError::Late(_)
            | SessionError::Answered(_)
            | SessionError::Form(_) => ProcessState::Silent,
        }
    }

    async fn look_at_data(&self) -> PostgresView {
        match BaseDirectory::look(&self.node.paths) {
            BaseDirectory::Empty => return blank(ProcessState::NoData),
            BaseDirectory::Unusable => return blank(ProcessState::Unusable),
            BaseDirectory::Primary | BaseDirectory::Standby => {}
        }
        let mut view = blank(ProcessState::Stopped);
        match self.control.read(&self.node).await {
            Ok(control) => {
                view.flushed = match control.state {
                    ClusterState::ShutDown => control.shutdown_checkpoint_end(),
                    ClusterState::ShutDownInRecovery => Some(control.minimum_recovery),
                    ClusterState::StartingUp
                    | ClusterState::ShuttingDown
                    | ClusterState::InCrashRecovery
                    | ClusterState::InArchiveRecovery
                    | ClusterState::InProduction => None,
                };
                view.shut_down_cleanly = Some(control.state.is_clean());
                view.timeline = Some(control.timeline);
                view.system = Some(control.system);
            }
            Err(error) => view.error = Some(error.to_string()),
        }
        view
    }

    fn view_of(&self, looked: Looked) -> PostgresView {
        let mut view = blank(ProcessState::Running);
        let stream = looked.receiver.and_then(|receiver| {
            Stream::read(&receiver.status?, &receiver.timeline?, &receiver.conninfo?)
        });
        let streaming = stream.filter(|stream| stream.status == "streaming");
        view.timeline = if looked.in_recovery {
            let streamed = streaming.as_ref().map(|stream| stream.timeline);
            streamed.or_else(|| {
                let checkpoint = Timeline(looked.checkpoint_timeline?);
                Some(self.newest_timeline_on_disk().max(checkpoint))
            })
        } else {
            looked
                .wal_file
                .and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok())
                .map(Timeline)
        };
        view.role =
            Some(if looked.in_recovery { PostgresRole::Standby } else { PostgresRole::Primary });
        view.system = looked.system.map(SystemId);
        view.flushed = looked.flushed;
        view.replayed = looked.replayed;
        view.streaming_as = streaming.and_then(|stream| stream.name);
        view.followers = looked
            .followers
            .unwrap_or_default()
            .into_iter()
            .map(|follower| PostgresFollower {
                name: follower.name.unwrap_or_default(),
                state: follower.state.unwrap_or_default(),
                sync_state: follower.sync_state.unwrap_or_default(),
                flushed: follower.flushed,
                replayed: follower.replayed,
            })
            .collect();
        view.clients_admitted = self.clients() == Clients::Admitted;
        view.sessions = looked.clients.sessions;
        let milliseconds = |value: i64| u64::try_from(value).unwrap_or(0);
        view.longest_transaction_ms = looked.clients.longest_ms.map(milliseconds);
        view.open_transactions = looked.clients.open;
        view.longest_application = looked.clients.longest_application;
        view.retained_wal = looked.retained.map(milliseconds).unwrap_or(0);
        view.archive = looked.archive.map(Box::new);
        view.slots = looked.slots.unwrap_or_default();
        view.logical_slots = looked.logical.unwrap_or_default();
        view.expiring = looked.expiring.map(Box::new);
        view.settings = looked.settings;
        view.sync_names = view.settings.get("synchronous_standby_names").cloned();
        view.version = view.settings.get("server_version_num").and_then(|text| text.parse().ok());
        let overrides = looked.overrides.unwrap_or_default().join(",");
        view.settings.insert(OVERRIDES.to_owned(), overrides);
        if let Some(wait) = looked.clients.commit_wait_ms {
            view.settings.insert(COMMIT_WAIT.to_owned(), wait.to_string());
        }
        view
    }
}
