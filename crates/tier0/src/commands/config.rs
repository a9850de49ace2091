//! `tier0 config`: the stack file, without any role running.

use std::process::ExitCode;

use tier0_config::Stack;

use crate::cli::ConfigCommand;

pub fn run(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check { file } => {
            let stack = Stack::load(file)?;
            let regions: Vec<&str> =
                stack.stack.regions.iter().map(|region| region.as_str()).collect();
            let datastores: Vec<String> = stack
                .datastores
                .iter()
                .map(|datastore| format!("{} ({})", datastore.name, datastore.kind))
                .collect();
            println!(
                "{} is good: stack {}, {} and back, {}",
                file.display(),
                stack.stack.name,
                regions.join(" to "),
                datastores.join(", ")
            );
        }
        ConfigCommand::Reference => print!("{}", tier0_config::reference()),
        ConfigCommand::Example => print!("{}", tier0_config::example()),
    }
    Ok(ExitCode::SUCCESS)
}
