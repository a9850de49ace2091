//! `lab logs` and `lab exec`: a look into one part of the lab, with its own tools.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use tier0_config::{DatastoreSettings, NodeSettings, Stack};
use tier0_core::record::DatastoreKind;

use crate::files;
use crate::preflight;
use crate::state::LabState;

/// Print the end of one log, or say which logs there are.
pub fn logs(state: &LabState, name: Option<&str>, lines: usize) -> Result<ExitCode> {
    let directory = state.directory.join("logs");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .with_context(|| format!("read {}", directory.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
        .collect();
    names.sort();
    match name {
        None => println!("{}", names.join("\n")),
        Some(name) if names.iter().any(|known| known == name) => {
            for line in files::tail(&directory.join(format!("{name}.log")), lines) {
                println!("{line}");
            }
        }
        Some(name) => bail!("there is no log '{name}'; there are: {}", names.join(", ")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Become `psql` or `redis-cli`, connected to a node, or to wherever the writer is.
pub fn exec(state: &LabState, what: &str, arguments: &[String]) -> Result<ExitCode> {
    let stack = state.stack()?;
    let mut problems = Vec::new();
    let Some(programs) = preflight::find_programs(&mut problems) else {
        bail!("{}", problems.join("; "));
    };
    let mut command = match what {
        "psql" => {
            let datastore = first(&stack, DatastoreKind::Postgres)?;
            psql(&programs, datastore, datastore.nodes.iter().collect(), "read-write")?
        }
        "redis-cli" => {
            let datastore = first(&stack, DatastoreKind::Redis)?;
            redis_cli(&programs, datastore, master_node(datastore)?)?
        }
        name => {
            let id = name.parse().with_context(|| {
                format!("'{name}' is neither psql, redis-cli nor a node like main.region1")
            })?;
            let node = stack.node(&id).with_context(|| format!("the lab has no node {name}"))?;
            let datastore = stack.datastore(id.datastore()).context("a node has a datastore")?;
            match datastore.kind {
                DatastoreKind::Postgres => psql(&programs, datastore, vec![node], "any")?,
                DatastoreKind::Redis => redis_cli(&programs, datastore, node)?,
            }
        }
    };
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("run {:?}", command.get_program()))
}

fn first(stack: &Stack, kind: DatastoreKind) -> Result<&DatastoreSettings> {
    stack
        .datastores
        .iter()
        .find(|datastore| datastore.kind == kind)
        .with_context(|| format!("the lab has no {kind} datastore"))
}

fn psql(
    programs: &preflight::Programs,
    datastore: &DatastoreSettings,
    nodes: Vec<&NodeSettings>,
    attributes: &str,
) -> Result<Command> {
    let settings = datastore.postgres.as_ref().context("PostgreSQL settings")?;
    let password = settings.application_password_file.read()?;
    let join = |texts: Vec<String>| texts.join(",");
    let mut command = Command::new(programs.postgres_directory.join("psql"));
    command
        .env("PGHOST", join(nodes.iter().map(|node| node.address.ip().to_string()).collect()))
        .env("PGPORT", join(nodes.iter().map(|node| node.address.port().to_string()).collect()))
        .env("PGUSER", &settings.application_user)
        .env("PGDATABASE", &settings.database)
        .env("PGPASSWORD", password.expose())
        .env("PGTARGETSESSIONATTRS", attributes);
    Ok(command)
}

fn redis_cli(
    programs: &preflight::Programs,
    datastore: &DatastoreSettings,
    node: &NodeSettings,
) -> Result<Command> {
    let settings = datastore.redis.as_ref().context("Redis settings")?;
    let password = settings.password_file.read()?;
    let mut command = Command::new(&programs.redis_cli);
    command
        .env("REDISCLI_AUTH", password.expose())
        .arg("-h")
        .arg(node.address.ip().to_string())
        .arg("-p")
        .arg(node.address.port().to_string());
    Ok(command)
}

/// The node that says it is master, by its own tool, because this is a place without a runtime.
fn master_node(datastore: &DatastoreSettings) -> Result<&NodeSettings> {
    let settings = datastore.redis.as_ref().context("Redis settings")?;
    let password = settings.password_file.read()?;
    let is_master = |node: &&NodeSettings| {
        let output = Command::new("redis-cli")
            .env("REDISCLI_AUTH", password.expose())
            .args(["-t", "1", "-h", &node.address.ip().to_string()])
            .args(["-p", &node.address.port().to_string(), "ROLE"])
            .output();
        output.is_ok_and(|output| output.stdout.starts_with(b"master"))
    };
    datastore.nodes.iter().find(is_master).context("no Redis of the lab says that it is master")
}
