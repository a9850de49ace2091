//! `tier0 automatic`.

use std::process::ExitCode;

use tier0_core::record::AutomaticMode;
use tier0_wire::AutomaticBody;

use crate::api::Api;
use crate::cli::{AutomaticArgs, AutomaticChoice};

pub async fn run(args: &AutomaticArgs) -> anyhow::Result<ExitCode> {
    let body = AutomaticBody {
        mode: match args.mode {
            AutomaticChoice::Armed => AutomaticMode::Armed,
            AutomaticChoice::Observe => AutomaticMode::Observe,
            AutomaticChoice::Off => AutomaticMode::Off,
        },
        for_seconds: args.lasting,
        reason: args.reason.clone(),
        requested_by: super::failover::who(),
    };
    let api = Api::find(&args.read.target)?;
    let answer = api.operate("/automatic", &body).await?;
    if args.read.json {
        super::print_json(&answer)?;
    } else {
        let lasting = args.lasting.map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
        println!("automatic moves: {}{lasting}", body.mode);
    }
    Ok(ExitCode::SUCCESS)
}
