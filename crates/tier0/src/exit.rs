//! Exit codes by kind, so that a script can tell "refused" from "broken".

use std::process::ExitCode;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did not succeed, and the message says what state things are in.
    Failed = 1,
    /// The command line, the configuration or the token is wrong.
    Usage = 2,
    /// Refused before any effect.
    Refused = 3,
    /// It is not known how it ended.
    Unknown = 4,
    /// The orchestrator could not be asked.
    Unreachable = 5,
    /// A bug, or the machine.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code and the next thing to try.
#[derive(Debug)]
pub struct Failure {
    /// What happened, with its cause.
    pub what: String,
    /// The next command, where there is one.
    pub hint: Option<String>,
    /// The exit code.
    pub code: Exit,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Print an error to standard error and give its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        eprintln!("error: {}", failure.what);
        if let Some(hint) = &failure.hint {
            eprintln!("hint: {hint}");
        }
        return failure.code.into();
    }
    eprintln!("error: {error:#}");
    if error.is::<tier0_config::ConfigError>() { Exit::Usage } else { Exit::Failed }.into()
}
