//! `tier0 explain`.

use std::process::ExitCode;

use anyhow::Context;
use tier0_wire::{OperationBody, OperationList};

use crate::api::Api;
use crate::cli::ExplainArgs;
use crate::exit::{Exit, Failure};
use crate::render;

pub async fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let api = Api::find(&args.read.target)?;
    let id = resolve(&api, &args.id).await?;
    let value: serde_json::Value = api.get(&format!("/operations/{id}")).await?;
    if args.read.json {
        super::print_json(&value)?;
    } else {
        let body: OperationBody =
            serde_json::from_value(value).context("read the orchestrator's answer")?;
        render::explain(&body);
    }
    Ok(ExitCode::SUCCESS)
}

/// What changes the writer.
const MOVES: [&str; 3] = ["switchover", "failover", "failback"];

/// The whole id that an operator means.
pub async fn resolve(api: &Api, meant: &str) -> anyhow::Result<String> {
    if meant.len() >= 36 {
        return Ok(meant.to_owned());
    }
    let list: OperationList = api.get("/operations?limit=200").await?;
    let mut all = list.operations.iter();
    let found = match meant {
        // Repairs follow every move by themselves; who asks for the last operation means the move.
        "last" => {
            all.find(|body| MOVES.contains(&body.kind.as_str())).or_else(|| list.operations.first())
        }
        beginning => all.find(|body| body.operation_id.starts_with(beginning)),
    };
    found.map(|body| body.operation_id.clone()).ok_or_else(|| {
        Failure {
            what: format!("no operation among the newest 200 begins with '{meant}'"),
            hint: Some("`tier0 history` lists them".to_owned()),
            code: Exit::Refused,
        }
        .into()
    })
}
