//! What must be there before a lab can start: programs, disk, ports, limits. Everything that is
//! missing is said at once, each with what would help. Changes nothing but our own file limit.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit};

use crate::account::Account;

const NEEDED_DISK_BYTES: u64 = 1 << 30;
const SMALL_SHARED_MEMORY_BYTES: u64 = 64 << 20;
const WANTED_FILES: u64 = 65_536;
const NEEDED_FILES: u64 = 1_024;
/// A Unix socket's path has room for 107 bytes; PostgreSQL adds its own file name.
const LONGEST_SOCKET_DIRECTORY: usize = 80;

/// Where the programs of the data servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// PostgreSQL's programs.
    pub postgres_directory: PathBuf,
    /// `redis-server`.
    pub redis_server: PathBuf,
    /// `redis-sentinel`.
    pub redis_sentinel: PathBuf,
    /// `redis-cli`.
    pub redis_cli: PathBuf,
    /// `pgbouncer`; a lab without it has no routes.
    pub pgbouncer: Option<PathBuf>,
    /// `etcd`; a lab without it has one orchestrator.
    pub etcd: Option<PathBuf>,
}

/// How PostgreSQL gets memory that its processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedMemory {
    /// From `/dev/shm`, the default.
    Posix,
    /// From files, because `/dev/shm` is small or missing, as in many containers.
    Mmap,
}

/// What the preflight found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The data servers' programs.
    pub programs: Programs,
    /// How PostgreSQL shares memory.
    pub shared_memory: SharedMemory,
}

/// Look at everything a lab in `directory` needs.
pub fn check(directory: &Path, account: &Account) -> Result<Preflight> {
    let mut problems = Vec::new();
    let programs = find_programs(&mut problems);
    check_disk(directory, &mut problems);
    raise_file_limit(&mut problems);
    if directory.as_os_str().len() + "/region1/main-9/socket".len() > LONGEST_SOCKET_DIRECTORY {
        problems.push(format!(
            "{} is too long for Unix sockets below it: choose a shorter --directory",
            directory.display()
        ));
    }
    if account.uid == 0 {
        problems.push("PostgreSQL refuses to run as root: run as another user".to_owned());
    }
    match programs {
        Some(programs) if problems.is_empty() => {
            Ok(Preflight { programs, shared_memory: shared_memory() })
        }
        _ => bail!("the lab cannot start:\n  - {}", problems.join("\n  - ")),
    }
}

/// Where the data servers' programs are.
pub fn find_programs(problems: &mut Vec<String>) -> Option<Programs> {
    let postgres_directory = postgres_directory();
    if postgres_directory.is_none() {
        problems.push(
            "PostgreSQL's server programs are missing (initdb, pg_basebackup, pg_rewind, …): \
             apt-get install postgresql-15, or name their directory in TIER0_POSTGRES_BIN"
                .to_owned(),
        );
    }
    let mut find = |program: &str, package: &str| {
        let found = on_path(program);
        if found.is_none() {
            problems.push(format!("{program} is missing: apt-get install {package}"));
        }
        found
    };
    let redis_server = find("redis-server", "redis-server");
    let redis_sentinel = find("redis-sentinel", "redis-sentinel");
    let redis_cli = find("redis-cli", "redis-tools");
    find("setsid", "util-linux");
    Some(Programs {
        postgres_directory: postgres_directory?,
        redis_server: redis_server?,
        redis_sentinel: redis_sentinel?,
        redis_cli: redis_cli?,
        pgbouncer: on_path("pgbouncer"),
        etcd: on_path("etcd"),
    })
}

fn postgres_directory() -> Option<PathBuf> {
    let complete = |directory: &PathBuf| {
        ["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_ctl"]
            .iter()
            .all(|program| directory.join(program).is_file())
    };
    if let Some(named) = std::env::var_os("TIER0_POSTGRES_BIN").map(PathBuf::from) {
        return complete(&named).then_some(named);
    }
    // Debian keeps the programs of each major version apart and puts none of them on PATH.
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let debian = versions.into_iter().rev().map(|(_, directory)| directory);
    let elsewhere = on_path("initdb")
        .and_then(|path| path.canonicalize().ok())
        .and_then(|path| path.parent().map(Path::to_owned));
    debian.chain(elsewhere).find(complete)
}

/// A program, also where Debian has what only root should run.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn check_disk(directory: &Path, problems: &mut Vec<String>) {
    let existing = directory.ancestors().find(|path| path.exists());
    let Some(Ok(statistics)) = existing.map(rustix::fs::statvfs) else {
        problems.push(format!("cannot see how much disk is free for {}", directory.display()));
        return;
    };
    let free = statistics.f_bavail * statistics.f_frsize;
    if free < NEEDED_DISK_BYTES {
        problems.push(format!(
            "{} has {} MiB free, the lab needs {} MiB",
            directory.display(),
            free >> 20,
            NEEDED_DISK_BYTES >> 20
        ));
    }
}

/// Raise the soft limit of open files; children inherit it.
fn raise_file_limit(problems: &mut Vec<String>) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED_FILES, |maximum| maximum.min(WANTED_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() && wanted >= NEEDED_FILES {
            return;
        }
    }
    if limit.current.is_some_and(|current| current < NEEDED_FILES) {
        problems.push(format!("ulimit -n is {wanted}, the lab needs {NEEDED_FILES}"));
    }
}

fn shared_memory() -> SharedMemory {
    let free = rustix::fs::statvfs("/dev/shm")
        .map(|statistics| statistics.f_bavail * statistics.f_frsize)
        .unwrap_or(0);
    if free < SMALL_SHARED_MEMORY_BYTES { SharedMemory::Mmap } else { SharedMemory::Posix }
}
