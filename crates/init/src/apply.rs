//! Doing what can be done while the servers run, in the one order that works: SQL on the primary,
//! the primary's files, then the standby's files, so that the standby finds its role, its slot and
//! its way in when it streams anew.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tier0_config::Stack;

use crate::Seen;
use crate::credentials::Credentials;
use crate::finding::{Finding, Level, Remedy};
use crate::postgres::{self, Cluster, Place};
use crate::redis;
use crate::request::InitArgs;
use crate::secrets::{SecretFiles, make_private};

/// How long one server may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Do it; one sentence for each thing that was done.
pub async fn apply(
    args: &InitArgs,
    credentials: &Credentials,
    seen: &Seen,
    stack: &Stack,
    findings: &[Finding],
) -> Result<Vec<String>> {
    if let Some(wrong) = findings.iter().find(|finding| finding.level == Level::Wrong) {
        return Err(anyhow!("nothing was changed: {}: {}", wrong.subject, wrong.sentence));
    }
    make_private(&args.directory.join("logs"))?;
    let states = stack.agents.iter().map(|one| &one.state_directory);
    for directory in states.chain(stack.orchestrators.iter().map(|one| &one.state_directory)) {
        make_private(directory)?;
    }
    let mut done = Vec::new();
    for cluster in &seen.postgres {
        statements(args, credentials, cluster, findings, &mut done).await?;
        files(args, cluster, stack, &mut done).await?;
    }
    for finding in findings {
        if let Some(Remedy::Redis { server, lines }) = &finding.remedy {
            commands(credentials, seen, server, lines, &mut done).await?;
        }
    }
    Ok(done)
}

async fn statements(
    args: &InitArgs,
    credentials: &Credentials,
    cluster: &Cluster,
    findings: &[Finding],
    done: &mut Vec<String>,
) -> Result<()> {
    let login = credentials.postgres(&cluster.name)?;
    let primary = cluster.primary().context("no primary")?;
    let password = SecretFiles::below(&args.directory).replication_password()?;
    for finding in findings.iter().filter(|one| one.subject == cluster.name.to_string()) {
        let Some(Remedy::Sql { database, lines }) = &finding.remedy else { continue };
        let client = postgres::open(primary.address, login, database).await?;
        for line in lines {
            postgres::run_statement(&client, line, &password).await?;
            done.push(format!("{}, database {database}: {line}", primary.id));
        }
    }
    Ok(())
}

/// The primary first.
async fn files(
    args: &InitArgs,
    cluster: &Cluster,
    stack: &Stack,
    done: &mut Vec<String>,
) -> Result<()> {
    let secrets = SecretFiles::below(&args.directory);
    let primary = &cluster.primary().context("no primary")?.id;
    let standbys = cluster.nodes.iter().map(|node| &node.id).filter(|id| *id != primary);
    let all = [(primary, None)].into_iter().chain(standbys.map(|id| (id, Some(primary))));
    for (id, upstream) in all {
        let own = stack.node(id).with_context(|| format!("{id} is not in the stack file"))?;
        if own.adopted.is_none() || postgres::place(&own.data_directory) != Place::Here {
            continue;
        }
        let adopted = postgres::adopter(stack, id, &secrets)?
            .adopt(upstream, LIMIT)
            .await
            .map_err(|why| anyhow!("{id}: {why}"))?;
        let mut sentence = format!("{id}: files written and reloaded");
        if !adopted.taken_out.is_empty() {
            sentence.push_str("; ALTER SYSTEM RESET ");
            sentence.push_str(&adopted.taken_out.join(", "));
        }
        done.push(sentence);
    }
    Ok(())
}

async fn commands(
    credentials: &Credentials,
    seen: &Seen,
    server: &str,
    lines: &[String],
    done: &mut Vec<String>,
) -> Result<()> {
    let address = server.parse().with_context(|| format!("the address {server}"))?;
    let group =
        seen.redis.iter().find(|group| group.nodes.iter().any(|one| one.address == address));
    // A Sentinel is asked without a password.
    let password = group.map(|group| credentials.redis(&group.name)).transpose()?;
    for line in lines {
        redis::ask(address, password, line).await?;
        done.push(format!("{server}: {line}"));
    }
    Ok(())
}
