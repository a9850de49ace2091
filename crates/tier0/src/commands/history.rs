//! `tier0 history`.

use std::process::ExitCode;

use tier0_wire::OperationList;

use crate::api::Api;
use crate::cli::HistoryArgs;
use crate::render;

pub async fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let path = format!("/operations?limit={}", args.limit);
    let body: OperationList = Api::find(&args.read.target)?.get(&path).await?;
    if args.read.json {
        super::print_json(&body)?;
    } else {
        render::history(&body.operations);
    }
    Ok(ExitCode::SUCCESS)
}
