//! PostgreSQL's own programs as child processes: with a bare environment, in the C locale, ended
//! with the order that started them, and whatever they have started with them. No password is ever in
//! an argument or in the environment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It could not be run or read.
    #[error("run {program}: {source}")]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{program} ended with {status}: {last}")]
    Ended {
        /// Its path.
        program: PathBuf,
        /// How.
        status: ExitStatus,
        /// The last lines that it wrote to standard error.
        last: String,
    },
}

/// A command with a bare environment: only where programs are, and the C locale.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null());
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    command.env("PATH", path).kill_on_drop(true);
    command
}

/// Run a program to its end and return its standard output.
pub(crate) async fn run(program: &Path, arguments: &[&OsStr]) -> Result<String, CommandError> {
    let mut output = String::new();
    run_with_lines(program, arguments, |line| output.extend([line, "\n"]), |_| {}).await?;
    Ok(output)
}

/// Run a program to its end, giving each line as it comes. A carriage return ends a line too:
/// `pg_basebackup` overwrites its progress with it.
pub(crate) async fn run_with_lines(
    program: &Path,
    arguments: &[&OsStr],
    mut on_output: impl FnMut(&str),
    mut on_error: impl FnMut(&str),
) -> Result<(), CommandError> {
    let failed = |source| CommandError::Run { program: program.to_owned(), source };
    let mut child = bare(program)
        .args(arguments)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let missing = || failed(std::io::Error::other("no pipe"));
    let output = child.stdout.take().ok_or_else(missing)?;
    let errors = child.stderr.take().ok_or_else(missing)?;
    let mut last: Vec<String> = Vec::new();
    let (output, errors) = tokio::join!(
        read_lines(output, |line| on_output(line)),
        read_lines(errors, |line| {
            on_error(line);
            last.push(line.to_owned());
            if last.len() > 5 {
                last.remove(0);
            }
        })
    );
    output.and(errors).map_err(failed)?;
    let status = child.wait().await.map_err(failed)?;
    group.forget();
    if status.success() {
        Ok(())
    } else {
        Err(CommandError::Ended { program: program.to_owned(), status, last: last.join(" | ") })
    }
}

/// A program and what it has started. `pg_basebackup` streams WAL in a process of its own, which does
/// not notice that the first one was killed: it would keep the slot, and the sockets of both.
struct Group(Option<Pid>);

impl Group {
    /// It has ended by itself; its number may be somebody else's soon.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended in between, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn read_lines(
    mut from: impl AsyncRead + Unpin,
    mut on_line: impl FnMut(&str),
) -> std::io::Result<()> {
    let (mut buffer, mut line) = ([0; 8192], Vec::new());
    loop {
        let count = from.read(&mut buffer).await?;
        for byte in &buffer[..count] {
            if matches!(byte, b'\n' | b'\r') {
                if !line.is_empty() {
                    on_line(&String::from_utf8_lossy(&line));
                }
                line.clear();
            } else {
                line.push(*byte);
            }
        }
        if count == 0 {
            if !line.is_empty() {
                on_line(&String::from_utf8_lossy(&line));
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn runs(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[tokio::test]
    async fn a_program_that_is_given_up_leaves_none_of_its_processes() {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let script = ["-c".as_ref(), "sleep 600 & echo $!; wait".as_ref()];
        let shell = Path::new("/bin/sh");
        let run =
            run_with_lines(shell, &script, |line| told.send(line.to_owned()).unwrap(), |_| {});
        let child: i32 = tokio::select! {
            ended = run => panic!("it ended: {ended:?}"),
            line = heard.recv() => line.unwrap().parse().unwrap(),
        };
        for _ in 0..500 {
            if !runs(child) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the process that it started lives on");
    }
}
