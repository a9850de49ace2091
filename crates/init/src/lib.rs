//! `tier0 init`: brings servers that run already under tier0 without stopping them.
//!
//! It looks at PostgreSQL, Redis and Sentinel (`postgres`, `redis`, `sentinel`, `units`), writes a
//! stack file (`plan`, `text`) and lists what is missing with the exact lines (`finding`). With
//! `--apply --yes` it does what can be done while the servers run (`apply`); what needs a restart
//! is left to the operator, with what is not safe until then.
//!
//! Start at [`run`]. It decides nothing about the writer: it only takes over who is primary now.

mod apply;
mod credentials;
mod finding;
mod plan;
mod postgres;
mod redis;
mod report;
mod request;
mod secrets;
mod sentinel;
mod text;
mod units;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tier0_config::Stack;

pub use finding::{Finding, Level, Remedy};
pub use report::Report;
pub use request::{Apply, InitArgs, NamedNodes, PlacedAddress};

use credentials::Credentials;
use secrets::SecretFiles;

/// How often, and how far apart, the servers are looked at after something was changed.
const LOOKS_AFTERWARDS: u32 = 20;
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// Everything one look at the servers brought.
pub(crate) struct Seen {
    pub postgres: Vec<postgres::Cluster>,
    pub redis: Vec<redis::Group>,
    pub sentinels: Vec<sentinel::Sentinel>,
}

/// Look, write the stack file, list what is missing, and do it where that was asked for.
pub async fn run(args: &InitArgs) -> Result<ExitCode> {
    args.check()?;
    let credentials = Credentials::load(&args.credentials)?;
    let secrets = SecretFiles::below(&args.directory);
    let seen = look(args, &credentials).await;
    let file = args.directory.join("stack.toml");
    let mut written = false;
    if !file.exists() {
        let stack = plan::stack(args, &credentials, &seen, &secrets)
            .context("the servers cannot be described as a stack")?;
        let problems = stack.problems();
        if !problems.is_empty() {
            bail!("these servers cannot be a stack:\n  - {}", problems.join("\n  - "));
        }
        secrets.create(&credentials, &stack)?;
        secrets::write_private(&file, &text::commented(&stack)?)?;
        written = true;
    }
    let stack = Stack::load(&file)?;
    let mut findings = judge(args, &credentials, &seen, &stack, &secrets).await?;
    let mut done = Vec::new();
    if args.apply() == Apply::Now {
        let plan = report::remedies(&findings);
        if args.json {
            eprint!("{plan}")
        } else {
            print!("{plan}")
        }
        done = apply::apply(args, &credentials, &seen, &stack, &findings).await?;
        // A link that begins anew takes a moment.
        for _ in 0..LOOKS_AFTERWARDS {
            let seen = look(args, &credentials).await;
            findings = judge(args, &credentials, &seen, &stack, &secrets).await?;
            if report::is_ready(&findings) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    let report = Report { stack_file: file, written, done, findings };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text(args.apply()));
    }
    Ok(if report.is_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(args: &InitArgs, credentials: &Credentials) -> Seen {
    let mut seen = Seen { postgres: Vec::new(), redis: Vec::new(), sentinels: Vec::new() };
    for one in &args.postgres {
        seen.postgres.push(postgres::look(one, credentials).await);
    }
    for one in &args.redis {
        seen.redis.push(redis::look(one, credentials).await);
    }
    for one in &args.sentinel {
        seen.sentinels.push(sentinel::look(one).await);
    }
    seen
}

async fn judge(
    args: &InitArgs,
    credentials: &Credentials,
    seen: &Seen,
    stack: &Stack,
    secrets: &SecretFiles,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for cluster in &seen.postgres {
        findings.extend(postgres::judge(cluster, stack, secrets).await?);
    }
    for group in &seen.redis {
        findings.extend(redis::judge(group, stack, credentials));
    }
    findings.extend(sentinel::judge(&seen.sentinels, stack));
    findings.extend(units::judge(&args.units, stack));
    Ok(findings)
}
