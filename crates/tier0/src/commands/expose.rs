//! `tier0 expose`.

use std::process::ExitCode;

use tier0_wire::RequestBody;

use crate::api::Api;
use crate::cli::ExposeArgs;

pub async fn run(args: &ExposeArgs) -> anyhow::Result<ExitCode> {
    if args.plan {
        println!("record-leave  the lost standby of {} leaves the takeover set", args.datastore);
        println!("leave         commits wait for nobody any more: there is a single copy");
        return Ok(ExitCode::SUCCESS);
    }
    let body = RequestBody {
        reason: args.reason.clone(),
        requested_by: super::failover::who(),
        ..RequestBody::default()
    };
    let api = Api::find(&args.read.target)?;
    let answer = api.post(&format!("/expose/{}", args.datastore), &body, None).await?;
    super::failover::ended(answer, args.read.json)
}
