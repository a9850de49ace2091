//! `tier0 check`.

use std::process::ExitCode;

use tier0_wire::CheckBody;

use crate::api::Api;
use crate::cli::CheckArgs;
use crate::exit::Exit;
use crate::render;

pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let path = match &args.region {
        Some(region) => format!("/readiness?target={region}"),
        None => "/readiness".to_owned(),
    };
    let body: CheckBody = Api::find(&args.read.target)?.get(&path).await?;
    if args.read.json {
        super::print_json(&body)?;
    } else {
        render::check(&body);
    }
    Ok(if body.ready { ExitCode::SUCCESS } else { Exit::Refused.into() })
}
