//! `tier0 status`.

use std::process::ExitCode;

use tier0_wire::StatusBody;

use crate::api::Api;
use crate::cli::Read;
use crate::render;

pub async fn run(args: &Read) -> anyhow::Result<ExitCode> {
    let body: StatusBody = Api::find(&args.target)?.get("/status").await?;
    if args.json {
        super::print_json(&body)?;
    } else {
        render::status(&body);
    }
    Ok(ExitCode::SUCCESS)
}
