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

/// The manual page: all commands with their options, one after the other.
pub fn man() -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        describe(one, &mut page)?;
    }
    std::io::stdout().write_all(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// A command and those below it, as sections of one page.
fn describe(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    if command.get_name() == "help" {
        return Ok(());
    }
    let name = command.get_bin_name().unwrap_or(command.get_name());
    writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
    let man = clap_mangen::Man::new(command.clone());
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(page)?;
    }
    command.get_subcommands().try_for_each(|below| describe(below, page))
}

/// The API's description.
pub fn openapi() -> anyhow::Result<ExitCode> {
    super::print_json(&tier0_orchestrator::openapi())?;
    Ok(ExitCode::SUCCESS)
}
