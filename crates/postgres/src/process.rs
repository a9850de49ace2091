//! The postmaster as a process: whether it is there, how to signal it, when it ends; and starting
//! it so that it outlives the agent.
//!
//! Sources: `miscinit.c` (`CreateLockFile`: the lines of `postmaster.pid`), `postmaster.c`
//! (signals), pidfd_open(2).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use crate::command;
use crate::settings::Checked;

/// A running postmaster. The handle means this very process, also after its number is used anew.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pid: Pid,
    handle: OwnedFd,
    /// When it started, in seconds since 1970.
    pub(crate) started: i64,
}

/// The process that a data directory's `postmaster.pid` names.
#[derive(Debug)]
enum Named {
    /// There is none, or it is another program's.
    Nobody,
    /// It has ended, but its parent has not asked for it; PostgreSQL takes it for alive.
    Zombie,
    /// It runs.
    Running(Postmaster),
}

impl Postmaster {
    /// The server that runs in a data directory.
    pub(crate) fn find(data: &Path) -> io::Result<Option<Postmaster>> {
        match Self::named(data)? {
            Named::Running(postmaster) => Ok(Some(postmaster)),
            Named::Nobody | Named::Zombie => Ok(None),
        }
    }

    /// Whether an ended server still keeps the next one from starting.
    pub(crate) fn is_zombie(data: &Path) -> io::Result<bool> {
        match Self::named(data)? {
            Named::Zombie => Ok(true),
            Named::Nobody | Named::Running(_) => Ok(false),
        }
    }

    /// Whether the lock file of a socket still names an ended server. A rewind removes
    /// `postmaster.pid` and leaves this one.
    pub(crate) fn is_zombie_at_socket(directory: &Path, port: u16) -> io::Result<bool> {
        match Self::named_in(&directory.join(format!(".s.PGSQL.{port}.lock")), directory)? {
            Named::Zombie => Ok(true),
            Named::Nobody | Named::Running(_) => Ok(false),
        }
    }

    fn named(data: &Path) -> io::Result<Named> {
        Self::named_in(&data.join("postmaster.pid"), data)
    }

    fn named_in(lock_file: &Path, data: &Path) -> io::Result<Named> {
        let text = match std::fs::read_to_string(lock_file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Named::Nobody),
            Err(error) => return Err(error),
        };
        let mut lines = text.lines();
        // A single-user server writes its number negated.
        let number = lines.next().and_then(|line| line.trim().parse::<i32>().ok()).map(i32::abs);
        let Some(pid) = number.and_then(Pid::from_raw) else { return Ok(Named::Nobody) };
        let started = lines.nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(0);
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => handle,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(Named::Nobody),
            Err(error) => return Err(error.into()),
        };
        let proc = proc(pid.as_raw_nonzero().get());
        match state(&proc) {
            None => return Ok(Named::Nobody),
            Some('Z' | 'X') => return Ok(Named::Zombie),
            Some(_) => {}
        }
        // A postmaster's working directory is its data directory: any other process has taken
        // the number over since.
        let same = match (std::fs::read_link(proc.join("cwd")), data.canonicalize()) {
            (Ok(cwd), Ok(data)) => cwd == data,
            (Err(_), _) | (_, Err(_)) => false,
        };
        Ok(if same { Named::Running(Postmaster { pid, handle, started }) } else { Named::Nobody })
    }

    /// Send a signal; a process that has ended meanwhile is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        tell(&self.handle, signal)
    }

    /// End it and then every child it had, without letting one of them go on: a child that is busy or
    /// frozen would go on without it, and might still answer. Does not wait for the kernel.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // Read before the postmaster is gone: its children would be nobody's then.
        let children = self.children();
        self.signal(Signal::KILL)?;
        // All of them, whatever becomes of one.
        children.iter().map(|child| tell(child, Signal::KILL)).fold(Ok(()), Result::and)
    }

    /// Have the server read its configuration again.
    pub(crate) fn reload(&self) -> io::Result<()> {
        self.signal(Signal::HUP)
    }

    /// Returns when the process has ended.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        ended(&self.handle).await
    }

    /// Its child processes now.
    pub(crate) fn children(&self) -> Vec<OwnedFd> {
        self.child_numbers().into_iter().filter_map(open).collect()
    }

    /// Its children that send WAL.
    pub(crate) fn wal_senders(&self) -> Vec<OwnedFd> {
        let sends = |pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|title| sends_wal(&title))
        };
        self.child_numbers().into_iter().filter(sends).filter_map(open).collect()
    }

    /// Its children that may be sessions, but for one: everything that is not known for a process of
    /// the server's own. One that is new and has not said yet what it is counts too.
    pub(crate) fn sessions_but(&self, one: i32) -> Vec<OwnedFd> {
        let may_be_session = |pid: &i32| {
            *pid != one
                && state(&proc(*pid)) != Some('Z')
                && std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|title| !sends_wal(&title) && !serves(&title))
        };
        self.child_numbers().into_iter().filter(may_be_session).filter_map(open).collect()
    }

    fn child_numbers(&self) -> Vec<i32> {
        let own = self.pid.as_raw_nonzero().get();
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
            return text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        }
        // A kernel without that file: look at every process.
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| parent(*pid) == Some(own))
            .collect()
    }
}

/// Processes of a server whose postmaster is dead. They end by themselves at their next wait, but
/// one that is frozen stays, may still answer, and keeps the next server from starting.
pub(crate) fn orphans(data: &Path) -> Vec<OwnedFd> {
    let (Ok(processes), Ok(data)) = (std::fs::read_dir("/proc"), data.canonicalize()) else {
        return Vec::new();
    };
    let is_ours = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)
            && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|title| {
                title.starts_with(TITLE) || is_server(&title) && is_stopped(*pid)
            })
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(is_ours)
        .filter_map(open)
        .collect()
}

/// Whether a title is still the one that the postmaster was started with: a child that is frozen before
/// it has set its own has that of its parent, and holds the port (`fork_process.c`).
fn is_server(title: &[u8]) -> bool {
    let program = title.split(|byte| *byte == 0).next().unwrap_or_default();
    program == b"postgres" || program.ends_with(b"/postgres")
}

/// Whether a process is stopped by a signal. One that is not notices that its postmaster is dead, or is a
/// postmaster that somebody is just starting.
fn is_stopped(pid: i32) -> bool {
    state(&proc(pid)) == Some('T')
}

/// How the title of every child of a postmaster begins (`ps_status.c`).
const TITLE: &[u8] = b"postgres: ";

/// Whether a child's title is that of a WAL sender: `ps_status.c` puts the cluster's name before
/// it, where there is one. An adopted server has the name that its operator gave it.
fn sends_wal(title: &[u8]) -> bool {
    let Some(rest) = title.strip_prefix(TITLE) else { return false };
    let rest = String::from_utf8_lossy(rest);
    let named = |(_, rest): (&str, &str)| rest.starts_with("walsender ");
    rest.starts_with("walsender ") || rest.split_once(": ").is_some_and(named)
}

/// Processes that a server has of its own and that write no rows (`postmaster.c`, `ps_status.c`). Their
/// titles are no longer than that, with the cluster's name before it; a session's says for whom it is.
const SERVES: [&str; 6] =
    ["checkpointer", "background writer", "walwriter", "archiver", "logger", "stats collector"];

/// Whether a child's title is that of such a process. The archiver's says what it did last.
fn serves(title: &[u8]) -> bool {
    let Some(rest) = title.strip_prefix(TITLE) else { return false };
    let rest = String::from_utf8_lossy(rest);
    let rest = rest.trim_end_matches(['\0', ' ']);
    let name = rest.rsplit_once(": ").map_or(rest, |(_, name)| name);
    SERVES.contains(&name)
        || ["archiver last was ", "archiver archiving "].iter().any(|at| name.starts_with(at))
}

fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()
}

/// Send a signal; a process that has ended meanwhile is no error.
pub(crate) fn tell(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(process.as_fd(), signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns when the process of this handle has ended.
pub(crate) async fn ended(handle: &OwnedFd) -> io::Result<()> {
    // A pidfd is readable once its process has ended, also as a zombie.
    #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what it asks for")]
    let waiting = AsyncFd::with_interest(handle.try_clone()?, Interest::READABLE)?;
    waiting.readable().await.map(|_| ())
}

/// Whether the postmaster has noted that it stops: the eighth line of its file (`pidfile.h`).
pub(crate) fn says_stopping(data: &Path) -> bool {
    std::fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "stopping"))
}

fn proc(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// The fields of `/proc/<pid>/stat` after the program's name, which may itself hold brackets.
fn stat(proc: &Path) -> Option<String> {
    let text = std::fs::read_to_string(proc.join("stat")).ok()?;
    text.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

fn state(proc: &Path) -> Option<char> {
    stat(proc)?.chars().next()
}

fn parent(pid: i32) -> Option<i32> {
    stat(&proc(pid))?.split(' ').nth(1)?.parse().ok()
}

/// Start the server in a session of its own, so that no signal to the agent or its terminal
/// reaches it. It is this process' child until this process ends, and must be waited for.
pub(crate) fn spawn(node: &Checked) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&node.paths.log)?;
    // `setsid` replaces itself by the server: the child's number is the postmaster's.
    let mut command = command::bare(Path::new("setsid"));
    command.arg(node.program("postgres")).arg("-D").arg(&node.paths.data);
    if let Some(directory) = node.config_outside() {
        let mut setting = std::ffi::OsString::from("config_file=");
        setting.push(directory.join("postgresql.conf"));
        command.arg("-c").arg(setting);
    }
    command
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .kill_on_drop(false)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(pid: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("postmaster.pid"), format!("{pid}\nx\n1\n")).unwrap();
        directory
    }

    #[test]
    fn a_sender_of_wal_is_known_by_its_title() {
        for title in ["postgres: walsender r ", "postgres: 15/main: walsender r ::1 streaming"] {
            assert!(sends_wal(title.as_bytes()), "{title}");
        }
        for title in ["postgres: main.region1: checkpointer ", "walsender ", "postgres: "] {
            assert!(!sends_wal(title.as_bytes()), "{title}");
        }
    }

    #[test]
    fn a_foreign_process_is_not_ours() {
        let directory = directory_with(&std::process::id().to_string());
        assert!(Postmaster::find(directory.path()).unwrap().is_none());
        assert!(!Postmaster::is_zombie(directory.path()).unwrap());
    }

    #[test]
    fn a_number_of_nobody_or_no_number_is_nobody() {
        for text in ["", "garbage", "0", "2147483646"] {
            let directory = directory_with(text);
            assert!(Postmaster::find(directory.path()).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let directory = directory_with(&child.id().to_string());
        let mut seen = false;
        for _ in 0..500 {
            seen = Postmaster::is_zombie(directory.path()).unwrap();
            if seen {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(seen);
        assert!(Postmaster::find(directory.path()).unwrap().is_none());
        child.wait().unwrap();
    }
}
