//! The commands, one file each.

mod authority;
mod automatic;
mod availability;
mod check;
mod config;
mod explain;
mod expose;
mod failover;
mod generate;
mod history;
mod init;
mod logs;
mod rebuild;
mod serve;
mod status;
mod support_bundle;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

/// Run one.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Status(args) => status::run(&args).await,
        Command::Availability(args) => availability::run(&args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Failover(args) => failover::run(args.region.as_str(), &args.how).await,
        Command::Failback(args) => failover::home(&args).await,
        Command::History(args) => history::run(&args).await,
        Command::Explain(args) => explain::run(&args).await,
        Command::Logs(args) => logs::run(&args).await,
        Command::SupportBundle(args) => support_bundle::run(&args).await,
        Command::Rebuild(args) => rebuild::run(&args).await,
        Command::Automatic(args) => automatic::run(&args).await,
        Command::Expose(args) => expose::run(&args).await,
        Command::Init(args) => init::run(&args).await,
        Command::Authority(command) => authority::run(&command).await,
        Command::Lab(command) => tier0_lab::run(command).await,
        Command::Agent(args) => serve::agent(&args).await,
        Command::Orchestrator(args) => serve::orchestrator(&args).await,
        Command::Router(args) => serve::router(&args).await,
        Command::TelemetryApi(args) => serve::telemetry_api(args).await,
        Command::Config(command) => config::run(&command),
        Command::Completion { shell } => generate::completion(shell),
        Command::Man => generate::man(),
        Command::Openapi => generate::openapi(),
        Command::LabInitialise { config, node } => {
            tier0_lab::initialise_node(&config, &node).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::LabLinks { directory, instance, seed } => {
            tier0_lab::run_links(&directory, instance, seed).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Print a value as the API gave it.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
