//! PostgreSQL's own programs as child processes: with a bare environment, in the C locale, ended
//! with the order that started them. No password is ever in an argument or in the environment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

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
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
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
    if status.success() {
        Ok(())
    } else {
        Err(CommandError::Ended { program: program.to_owned(), status, last: last.join(" | ") })
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
