//! The roles as processes: logging, and a clean end on SIGTERM or SIGINT.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{AgentArgs, OrchestratorArgs};

/// The agent of a region.
pub async fn agent(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    log();
    tier0_agent::run(&args.config, &args.region, asked_to_end()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The orchestrator of a site.
pub async fn orchestrator(args: &OrchestratorArgs) -> anyhow::Result<ExitCode> {
    log();
    tier0_orchestrator::run(&args.config, &args.site, asked_to_end()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The router of a region.
pub async fn router(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    log();
    tier0_router::run(&args.config, &args.region, asked_to_end()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The reference backend of a region.
pub async fn telemetry_api(args: AgentArgs) -> anyhow::Result<ExitCode> {
    log();
    tier0_telemetry_api::run(&args.config, args.region, asked_to_end()).await?;
    Ok(ExitCode::SUCCESS)
}

fn log() {
    let filter = EnvFilter::try_from_env("TIER0_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).with(tier0_logbook::Logbook).init();
}

/// Resolves when the process is asked to end. Without a handler the signal ends it at once, which
/// is safe as well, so a failure to install one is only logged.
async fn asked_to_end() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "no handler for a signal");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
    tracing::info!("asked to end");
}
