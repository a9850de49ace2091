//! The server process: finding it, starting it, ending it, waiting for its end.
//!
//! A process is ours if it runs in the node's data directory under the server's name. The pid file
//! alone proves nothing (the number may be somebody else's by now), and its absence proves nothing
//! either, so a missing or stale one is followed by a look through `/proc`.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::settings::Place;
use crate::trouble::Trouble;

/// How long the launcher may take until the server has forked away.
const LAUNCH: Duration = Duration::from_secs(5);

/// The pid of the node's running server.
pub(crate) fn find(place: &Place, binary: &Path) -> Option<Pid> {
    let directory = fs::canonicalize(&place.directory).ok()?;
    let by_file = fs::read_to_string(place.pid_file())
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .and_then(Pid::from_raw)
        .filter(|pid| is_ours(*pid, &directory, binary));
    by_file.or_else(|| {
        fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .find(|pid| is_ours(*pid, &directory, binary))
    })
}

fn is_ours(pid: Pid, directory: &Path, binary: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
    // The cheapest test first: most processes fail it, and those of other users cannot be read.
    if fs::read_link(proc.join("cwd")).ok().as_deref() != Some(directory) {
        return false;
    }
    let alive = fs::read_to_string(proc.join("stat")).is_ok_and(|stat| {
        // The name may contain anything, so the state is what follows the last parenthesis.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z' | 'X' | 'x'))
    });
    // Children that save have the same directory and another title (`redis-rdb-bgsave`). Only the
    // program's own name counts: a reader of `redis-server.log` names the server too.
    let titled = fs::read(proc.join("cmdline")).is_ok_and(|title| {
        let program = title.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
        let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        binary.file_name().is_some_and(|binary| binary.as_encoded_bytes() == name)
    });
    alive && titled
}

/// Start the server with the file that is there, and come back when its process is there.
pub(crate) async fn start(place: &Place, binary: &Path) -> Result<Pid, Trouble> {
    let pid_file = place.pid_file();
    match fs::remove_file(&pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Trouble::file("remove", &pid_file, &error));
        }
        Ok(()) | Err(_) => {}
    }
    let logged = fs::metadata(&place.log_file).map_or(0, |meta| meta.len());
    let launched = Command::new(binary)
        .arg(place.conf_file())
        .current_dir(&place.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let output = timeout(LAUNCH, launched)
        .await
        .map_err(|_| Trouble::Unknown(format!("{} did not start within 5 s", binary.display())))?
        .map_err(|error| Trouble::file("start", binary, &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        return Err(Trouble::failed(format!(
            "{} refused to start: {}",
            binary.display(),
            said.join(" / ")
        )));
    }
    let begun = Instant::now();
    loop {
        if let Some(pid) = find(place, binary) {
            if pid_file.exists() {
                return Ok(pid);
            }
        } else if begun.elapsed() > Duration::from_millis(200) {
            return Err(Trouble::failed(format!(
                "the server ended while starting; its log says: {}",
                log_since(&place.log_file, logged)
            )));
        }
        if begun.elapsed() > LAUNCH {
            return Err(Trouble::Unknown("the server wrote no pid file within 5 s".into()));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// The last lines that were logged since the file had this length.
pub(crate) fn log_since(file: &Path, length: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(file)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.max(end.saturating_sub(4096)).min(end)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
            lines[lines.len().saturating_sub(3)..].join(" / ")
        }
        Err(error) => format!("(cannot be read: {error})"),
    }
}

/// A handle that becomes readable when the process ends (pidfd_open(2)).
#[expect(
    deprecated,
    reason = "its replacement is an unsafe function; what is wrong with this one is that it takes \
              types whose descriptor may change, which an OwnedFd is not"
)]
fn handle(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let fd =
        pidfd_open(pid, PidfdFlags::NONBLOCK).or_else(|_| pidfd_open(pid, PidfdFlags::empty()));
    AsyncFd::new(fd.ok()?).ok()
}

/// Wait until this process of the node has ended.
pub(crate) async fn ended(pid: Pid, place: &Place, binary: &Path) {
    match handle(pid) {
        Some(handle) => {
            let _ = handle.readable().await;
        }
        // Gone already, or a kernel without such handles (before 5.3).
        None => {
            while find(place, binary) == Some(pid) {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// End the server at once, whatever it does, and wait until it is gone.
pub(crate) async fn kill(place: &Place, binary: &Path) -> Result<(), Trouble> {
    let Some(pid) = find(place, binary) else { return Ok(()) };
    let Some(handle) = handle(pid) else { return Ok(()) };
    // The handle names this process for ever, so it is asked once more whose it is.
    if find(place, binary) != Some(pid) {
        return Ok(());
    }
    if let Err(error) = pidfd_send_signal(handle.get_ref(), Signal::KILL) {
        return Err(Trouble::failed(format!("cannot end process {}: {error}", pid.as_raw_pid())));
    }
    match timeout(LAUNCH, handle.readable()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Trouble::Unknown(format!("process {} does not end", pid.as_raw_pid()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_only_mentions_the_server_is_not_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("redis-server.log");
        fs::write(&log, "").expect("a file");
        let place = Place {
            address: "127.0.0.1:7000".parse().expect("a literal"),
            directory: directory.path().to_owned(),
            log_file: log,
        };
        let mut reader = std::process::Command::new("tail")
            .args(["-f", "redis-server.log"])
            .current_dir(directory.path())
            .spawn()
            .expect("tail");
        // Its name in /proc is there only after its exec.
        std::thread::sleep(Duration::from_millis(200));
        let found = find(&place, Path::new("/usr/bin/redis-server"));
        reader.kill().expect("to end it");
        reader.wait().expect("its end");
        assert_eq!(found, None);
    }
}
