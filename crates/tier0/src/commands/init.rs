//! `tier0 init`.

use std::process::ExitCode;

use tier0_init::InitArgs;

/// Take over servers that run already.
pub async fn run(args: &InitArgs) -> anyhow::Result<ExitCode> {
    tier0_init::run(args).await
}
