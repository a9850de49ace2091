//! `tier0 authority adopt`.

use std::process::ExitCode;

use tier0_orchestrator::{adopt, plan_adoption};

use crate::cli::AuthorityCommand;

pub async fn run(command: &AuthorityCommand) -> anyhow::Result<ExitCode> {
    let AuthorityCommand::Adopt(args) = command;
    let plan = plan_adoption(&args.config, &args.site, &args.writer, &args.lost_region).await?;
    for (region, heard) in &plan.heard {
        println!("the agent of {region} has heard of {heard}");
    }
    let record = &plan.record;
    println!(
        "the record goes on at epoch {}, revision {}, writer {}, every takeover set empty",
        record.epoch, record.revision, record.writer
    );
    for (node, why) in &record.held {
        println!("{node} stays held: {why}");
    }
    if let Some(why) = &plan.held_unknown {
        println!(
            "which data directories were held after an accepted loss is not known ({why}): if one \
             was, copy it away before the orchestrator is started"
        );
    }
    if !args.yes {
        println!("nothing was done: repeat it with --yes");
        return Ok(ExitCode::SUCCESS);
    }
    let aside = adopt(&plan)?;
    println!("done; the old store is in {aside}");
    println!("start the orchestrator: it brings the stack back to protected by itself");
    Ok(ExitCode::SUCCESS)
}
