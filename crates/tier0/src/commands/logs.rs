//! `tier0 logs`.

use std::process::ExitCode;
use std::time::Duration;

use tier0_wire::LogsBody;

use crate::api::Api;
use crate::cli::LogsArgs;
use crate::render;

/// How often there may be news.
const EVERY: Duration = Duration::from_millis(300);

pub async fn run(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let api = Api::find(&args.read.target)?;
    let operation = match &args.operation {
        Some(meant) => Some(super::explain::resolve(&api, meant).await?),
        None => None,
    };
    let mut after = String::new();
    loop {
        let body = fetch(&api, operation.as_deref(), &after).await?;
        for line in &body.lines {
            match args.read.json {
                true => println!("{}", serde_json::to_string(line)?),
                false => println!("{}", render::log_line(line)),
            }
        }
        if after.is_empty() {
            for (role, why) in &body.silent {
                eprintln!("note: {role} could not be asked: {why}");
            }
        }
        if !args.follow || body.ended {
            return Ok(ExitCode::SUCCESS);
        }
        after = body.after;
        tokio::time::sleep(EVERY).await;
    }
}

/// The lines of an operation, or all, after a place.
pub async fn fetch(api: &Api, operation: Option<&str>, after: &str) -> anyhow::Result<LogsBody> {
    let operation = operation.map(|id| format!("operation={id}&")).unwrap_or_default();
    api.get(&format!("/logs?{operation}after={after}")).await
}
