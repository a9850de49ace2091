//! What the agent finds out beside its servers: what else could start one, how old backups are.
//! Looked at now and then, never on the way of a poll or a command.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tier0_config::{DatastoreSettings, NodeSettings, Stack};
use tier0_core::observe::{BackupView, HostView};
use tier0_core::record::DatastoreKind;
use tier0_core::words::{NodeId, Region, WallMillis};

/// How often files are looked at.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// How often a backup command is run.
const BACKUP_EVERY: Duration = Duration::from_secs(60);
/// How long it may take.
const BACKUP_WITHIN: Duration = Duration::from_secs(10);

/// The newest of everything.
#[derive(Clone, Default)]
pub struct Host {
    view: Arc<Mutex<HostView>>,
}

impl Host {
    /// What is known, with the time it is asked for.
    pub fn view(&self) -> HostView {
        let mut view = self.lock().clone();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        view.wall = now.ok().map(|now| WallMillis(now.as_millis() as i64));
        view
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HostView> {
        // What is in there is replaced part by part, and each part is right by itself.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Look again and again, until the process ends.
    pub fn watch(&self, stack: &Stack, region: &Region) {
        let units = stack.agent(region).map(|agent| agent.unit_directory.clone());
        for datastore in &stack.datastores {
            for node in datastore.nodes.iter().filter(|node| node.region == *region) {
                let id = NodeId::new(datastore.name.clone(), node.region.clone());
                if let Some(units) = units.clone() {
                    let (host, datastore, node) = (self.clone(), datastore.clone(), node.clone());
                    let id = id.clone();
                    tokio::spawn(async move {
                        host.look_for_units(&id, &datastore, &node, &units).await
                    });
                }
                if node.backup_stamp_file.is_some() || node.backup_command.is_some() {
                    let (host, node) = (self.clone(), node.clone());
                    tokio::spawn(async move { host.watch_backups(&id, &node).await });
                }
            }
        }
    }

    async fn look_for_units(
        &self,
        id: &NodeId,
        datastore: &DatastoreSettings,
        node: &NodeSettings,
        units: &Path,
    ) {
        loop {
            let others = match datastore.kind {
                DatastoreKind::Postgres => tier0_postgres::autostart(node, units),
                DatastoreKind::Redis => tier0_redis::autostart(node, units),
            };
            let sentences =
                others.into_iter().map(|one| format!("{} ({})", one.sentence, one.remedy));
            self.lock().autostart.insert(id.clone(), sentences.collect());
            tokio::time::sleep(FILES_EVERY).await;
        }
    }

    async fn watch_backups(&self, id: &NodeId, node: &NodeSettings) {
        let every = if node.backup_command.is_some() { BACKUP_EVERY } else { FILES_EVERY };
        loop {
            let found = match (&node.backup_command, &node.backup_stamp_file) {
                (Some(program), _) => ask(program).await,
                (None, Some(file)) => modified(file),
                (None, None) => return,
            };
            let (age, error) = match found {
                Ok(at) => (Some(at.elapsed().unwrap_or_default().as_secs()), None),
                Err(why) => (None, Some(why)),
            };
            let view = BackupView { age_seconds: age, error };
            self.lock().backups.insert(id.clone(), view);
            tokio::time::sleep(every).await;
        }
    }
}

fn modified(file: &Path) -> Result<SystemTime, String> {
    let of = |error: std::io::Error| format!("{}: {error}", file.display());
    std::fs::metadata(file).map_err(of)?.modified().map_err(of)
}

/// Run the operator's command: its first line is when the newest backup ended, in seconds since
/// 1970.
async fn ask(program: &Path) -> Result<SystemTime, String> {
    let mut command = tokio::process::Command::new(program);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BACKUP_WITHIN, command.output()).await;
    let name = program.display();
    let output = output
        .map_err(|_| format!("{name}: no answer in {} s", BACKUP_WITHIN.as_secs()))?
        .map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", output.status));
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().unwrap_or_default().trim();
    let seconds: u64 = line.parse().map_err(|_| {
        let shown: String = line.chars().take(40).collect();
        format!("{name} says '{shown}', which is no number of seconds since 1970")
    })?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
