//! `tier0 rebuild`: the plan, or the work with its progress on standard error.

use std::process::ExitCode;
use std::time::Duration;

use tier0_core::words::NodeId;
use tier0_wire::{NodeStatus, RebuildPlanBody, RequestBody, StatusBody};

use crate::api::Api;
use crate::cli::RebuildArgs;
use crate::exit::Exit;
use crate::render;

pub async fn run(args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let api = Api::find(&args.read.target)?;
    if args.plan {
        let body: RebuildPlanBody = api.get(&format!("/rebuild/{}/plan", args.node)).await?;
        match args.read.json {
            true => super::print_json(&body)?,
            false => render::plan_of_rebuild(&body),
        }
        return Ok(body.refusal.map_or(ExitCode::SUCCESS, |_| Exit::Refused.into()));
    }
    let body = RequestBody {
        reason: args.reason.clone(),
        requested_by: super::failover::who(),
        ..RequestBody::default()
    };
    let path = format!("/rebuild/{}", args.node);
    let answer = tokio::select! {
        answer = api.post(&path, &body, None) => answer?,
        never = show_progress(&api, &args.node) => match never {},
    };
    super::failover::ended(answer, args.read.json)
}

/// How often it is asked how far the node is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Say what the node does whenever that changes, until nobody listens any more.
async fn show_progress(api: &Api, node: &NodeId) -> std::convert::Infallible {
    let mut said = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Where the orchestrator is not heard just now, there is nothing to say.
        let Ok(status) = api.get::<StatusBody>("/status").await else { continue };
        let mut nodes = status.datastores.into_iter().flat_map(|datastore| datastore.nodes);
        let found = nodes.find(|one| one.node == node.to_string());
        let doing = found.and_then(|NodeStatus { doing, .. }| doing);
        if doing != said {
            if let Some(doing) = &doing {
                eprintln!("{node}: {doing}");
            }
            said = doing;
        }
    }
}
