//! `tier0 rebuild`.

use std::process::ExitCode;

use tier0_wire::RequestBody;

use crate::api::Api;
use crate::cli::RebuildArgs;

pub async fn run(args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    if args.plan {
        println!("record-leave  {} leaves the takeover set; the datastore is exposed", args.node);
        println!("leave         commits wait for nobody any more");
        println!("follow        the old data directory is set aside, a base backup is taken,");
        println!("              the node starts and streams");
        println!("join          it joins the takeover set again by itself");
        return Ok(ExitCode::SUCCESS);
    }
    let body = RequestBody {
        reason: args.reason.clone(),
        requested_by: super::failover::who(),
        ..RequestBody::default()
    };
    let api = Api::find(&args.read.target)?;
    let answer = api.post(&format!("/rebuild/{}", args.node), &body, None).await?;
    super::failover::ended(answer, args.read.json)
}
