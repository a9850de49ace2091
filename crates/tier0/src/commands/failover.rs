//! `tier0 failover` and `tier0 failback`.

use std::process::ExitCode;

use anyhow::Context;
use tier0_wire::{OperationBody, PlanBody, RequestBody, StatusBody};

use crate::api::Api;
use crate::cli::MoveArgs;
use crate::exit::Exit;
use crate::render;

/// Move the writer to a region.
pub async fn run(region: &str, args: &MoveArgs) -> anyhow::Result<ExitCode> {
    let api = Api::find(&args.read.target)?;
    if args.plan {
        let body: PlanBody = api.get(&format!("/plan/{region}")).await?;
        if args.read.json {
            super::print_json(&body)?;
        } else {
            render::plan(&body);
        }
        return Ok(if body.check.ready { ExitCode::SUCCESS } else { Exit::Refused.into() });
    }
    let body = RequestBody {
        reason: args.reason.clone(),
        accept_loss: args.accept_loss,
        old_side_is_down: args.old_side_is_down,
        wait_seconds: args.wait,
        requested_by: who(),
    };
    let path = format!("/failover/{region}");
    let answer = api.post(&path, &body, args.idempotency_key.as_deref()).await?;
    ended(answer, args.read.json)
}

/// Move the writer home.
pub async fn home(args: &MoveArgs) -> anyhow::Result<ExitCode> {
    let status: StatusBody = Api::find(&args.read.target)?.get("/status").await?;
    let home = status.regions.first().context("the stack has no regions")?;
    run(home, args).await
}

/// Print how an operation ended.
pub fn ended(answer: serde_json::Value, json: bool) -> anyhow::Result<ExitCode> {
    let body: OperationBody =
        serde_json::from_value(answer).context("read the orchestrator's answer")?;
    if json {
        super::print_json(&body)?;
    } else {
        render::operation(&body);
    }
    Ok(match (body.success, body.result.as_str()) {
        (true, _) => ExitCode::SUCCESS,
        (false, "unknown") => Exit::Unknown.into(),
        (false, _) => Exit::Failed.into(),
    })
}

/// Who asks, for the history.
pub fn who() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()));
    // Without a name the owner of this very process still says who it was.
    named.or_else(|| {
        let process = std::fs::metadata("/proc/self").ok()?;
        Some(format!("user id {}", process.uid()))
    })
}
