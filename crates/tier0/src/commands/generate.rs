//! What is generated from the command line's own description.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::Cli;

/// A completion script.
pub fn completion(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    clap_complete::generate(shell, &mut Cli::command(), "tier0", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// The manual page.
pub fn man() -> anyhow::Result<ExitCode> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    std::io::stdout().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// The API's description.
pub fn openapi() -> anyhow::Result<ExitCode> {
    super::print_json(&tier0_orchestrator::openapi())?;
    Ok(ExitCode::SUCCESS)
}
