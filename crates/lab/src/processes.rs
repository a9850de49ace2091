//! The processes of a lab as the kernel sees them: found without help of any list, so that they
//! can also be ended after whoever started them was killed.
//!
//! A process belongs to a lab if it was started with `TIER0_LAB=<directory>` in its environment,
//! runs the lab's copy of the binary, or is a data server that works inside the directory. (The
//! last is needed because redis-server and PostgreSQL's children write their title over their
//! environment.) It must run as the lab's user, have no terminal, and not be an ancestor of ours.
//! The process of the links runs as root, and is known by the variable alone.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// The variable that marks the processes of a lab.
pub const MARK: &str = "TIER0_LAB";

/// Programs that may be taken for a part of the lab because of where they work.
const SERVERS: [&str; 10] = [
    "postgres",
    "redis-server",
    "redis-sentinel",
    "redis-check-rdb",
    "redis-check-aof",
    "valkey-server",
    "pg_basebackup",
    "pg_rewind",
    "initdb",
    "pg_ctl",
];

/// One process for as long as the machine runs: numbers are used again, start times are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

/// A process of the lab.
#[derive(Debug, Clone)]
pub struct Process {
    /// Which.
    pub identity: Identity,
    /// Its parent's number.
    pub parent: i32,
    /// The file name of its program.
    pub program: String,
    /// Its working directory.
    pub directory: PathBuf,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The lab's user's.
    Lab,
    /// Root's.
    Root,
}

/// The kinds of processes, in the order in which they are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Agent, orchestrator, reference backend: whatever might start a server.
    Role,
    /// A PostgreSQL postmaster.
    Postmaster,
    /// Anything else: Redis, Sentinel, helpers, PostgreSQL's children.
    Other,
    /// The links between the sites, which the others need to end well.
    Links,
}

impl Process {
    /// What kind of process it is.
    pub fn class(&self, all: &[Process]) -> Class {
        let child_of_postgres = || {
            all.iter().any(|other| {
                other.identity.pid == self.parent && other.program.starts_with("postgres")
            })
        };
        match self.program.as_str() {
            _ if self.owner == Owner::Root => Class::Links,
            "tier0" => Class::Role,
            "postgres" if !child_of_postgres() => Class::Postmaster,
            _ => Class::Other,
        }
    }
}

struct Stat {
    state: char,
    parent: i32,
    terminal: i32,
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may contain anything.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        terminal: fields.get(4)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// The identity of a running process.
pub fn identify(pid: i32) -> Option<Identity> {
    stat(pid)
        .filter(|stat| !matches!(stat.state, 'Z' | 'X'))
        .map(|stat| Identity { pid, start_time: stat.start_time })
}

/// Whether it still runs. One that only waits to be reaped does not.
pub fn is_running(identity: Identity) -> bool {
    identify(identity.pid) == Some(identity)
}

/// Whether it was stopped by a signal, and would go on.
pub fn is_frozen(identity: Identity) -> bool {
    stat(identity.pid)
        .is_some_and(|stat| stat.start_time == identity.start_time && stat.state == 'T')
}

/// What it calls itself.
pub fn title(identity: Identity) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{}/cmdline", identity.pid)).ok()?;
    let words: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Some(words.join(" "))
}

/// Send a signal, if it is still the same process.
pub fn signal(identity: Identity, signal: Signal) {
    if is_running(identity)
        && let Some(pid) = Pid::from_raw(identity.pid)
    {
        // It may have ended in between, which is what most signals are for.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Every process of the lab in `directory` that runs as user `uid`.
pub fn of_lab(directory: &Path, uid: u32) -> Vec<Process> {
    let ancestors = ancestors();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| !ancestors.contains(pid))
        .filter_map(|pid| inspect(pid, directory, uid))
        .collect()
}

fn inspect(pid: i32, directory: &Path, uid: u32) -> Option<Process> {
    let proc_directory = PathBuf::from(format!("/proc/{pid}"));
    let owner = match std::fs::metadata(&proc_directory).ok()?.uid() {
        lab if lab == uid => Owner::Lab,
        0 => Owner::Root,
        _ => return None,
    };
    let stat = stat(pid)?;
    if matches!(stat.state, 'Z' | 'X') || stat.terminal != 0 {
        return None;
    }
    let link = |name: &str| std::fs::read_link(proc_directory.join(name)).unwrap_or_default();
    let program_path = link("exe");
    let program = program_path
        .file_name()
        .map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
        .unwrap_or_default();
    let working = link("cwd");
    let by_place = program_path.starts_with(directory)
        || (SERVERS.contains(&program.as_str()) && working.starts_with(directory));
    let belongs = (owner == Owner::Lab && by_place) || is_marked(&proc_directory, directory);
    belongs.then_some(Process {
        identity: Identity { pid, start_time: stat.start_time },
        parent: stat.parent,
        program,
        directory: working,
        owner,
    })
}

fn is_marked(proc_directory: &Path, directory: &Path) -> bool {
    let Some(directory) = directory.to_str() else { return false };
    let wanted = format!("{MARK}={directory}");
    std::fs::read(proc_directory.join("environ"))
        .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}

fn ancestors() -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    let mut pid = rustix::process::getpid().as_raw_nonzero().get();
    while pid > 0 && all.insert(pid) {
        pid = stat(pid).map_or(0, |stat| stat.parent);
    }
    all
}
