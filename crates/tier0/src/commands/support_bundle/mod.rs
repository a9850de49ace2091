//! `tier0 support-bundle`: what somebody who helps needs to see, in one file, without secrets.
//!
//! Left out: data, server logs, and whatever only root can read.

mod redact;

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use tier0_config::{SecretSource, Stack};
use tier0_wire::OperationList;

use crate::api::Api;
use crate::cli::SupportBundleArgs;
use redact::redact;

/// How many operations are given with all their steps.
const OPERATIONS: usize = 20;

pub async fn run(args: &SupportBundleArgs) -> anyhow::Result<ExitCode> {
    let api = Api::find(&args.target)?;
    let config = match &args.config {
        Some(file) => Some(file.clone()),
        None => tier0_lab::state::discover()?.map(|lab| lab.stack_file),
    };
    let parts = collect(&api, config.as_deref()).await;
    let secrets = config.as_deref().map(secrets_of).unwrap_or_default();
    let directory = Temporary::make()?;
    let inside = directory.0.join("tier0-support");
    std::fs::create_dir(&inside).with_context(|| format!("make {}", inside.display()))?;
    for (name, text) in &parts {
        let path = inside.join(name);
        std::fs::write(&path, redact(text, &secrets))
            .with_context(|| format!("write {}", path.display()))?;
    }
    pack(&directory.0, &args.output)?;
    println!("{} holds:", args.output.display());
    for (name, text) in &parts {
        println!("  {name:<28} {:>8} bytes", text.len());
    }
    println!("passwords and tokens are cut out; look through it before you give it away");
    Ok(ExitCode::SUCCESS)
}

/// Every part with its name. A part that cannot be had says why: a bundle of a broken stack is the
/// one that is needed.
async fn collect(api: &Api, config: Option<&Path>) -> Vec<(String, String)> {
    let mut parts = vec![("version.txt".to_owned(), version())];
    let mut add = |name: &str, text: anyhow::Result<String>| {
        let text = text.unwrap_or_else(|error| format!("could not be had: {error:#}\n"));
        parts.push((name.to_owned(), text));
    };
    for (name, path) in [
        ("status.json", "/status"),
        ("readiness.json", "/readiness"),
        ("operations.json", "/operations?limit=200"),
        ("metrics.txt", "/metrics"),
    ] {
        add(name, api.get_text(path).await);
    }
    let listed = api.get::<OperationList>("/operations?limit=200").await;
    for body in listed.map(|list| list.operations).unwrap_or_default().iter().take(OPERATIONS) {
        let id = &body.operation_id;
        add(&format!("operation-{id}.json"), api.get_text(&format!("/operations/{id}")).await);
    }
    let logs = super::logs::fetch(api, None, "").await.map(|body| {
        let lines: Vec<String> = body.lines.iter().map(crate::render::log_line).collect();
        let silent = body.silent.iter().map(|(role, why)| format!("{role} was not asked: {why}"));
        silent.chain(lines).map(|line| line + "\n").collect()
    });
    add("logs.txt", logs);
    if let Some(config) = config {
        let text = std::fs::read_to_string(config);
        add("stack.toml", text.with_context(|| format!("read {}", config.display())));
    }
    parts
}

fn version() -> String {
    let kernel = std::fs::read_to_string("/proc/version").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: Vec<&str> = memory.lines().take(5).collect();
    let tier0 = crate::cli::VERSION;
    format!("tier0 {tier0}\n{kernel}load {load}{}\n", memory.join("\n"))
}

/// The values of every secret of a stack, as far as they can be read here.
fn secrets_of(config: &Path) -> Vec<String> {
    let Ok(stack) = Stack::load(config) else { return Vec::new() };
    let mut sources: Vec<&SecretSource> = vec![&stack.stack.role_token_file];
    for one in &stack.orchestrators {
        sources.extend([&one.operate_token_file, &one.accept_loss_token_file]);
    }
    for datastore in &stack.datastores {
        if let Some(postgres) = &datastore.postgres {
            let files = [&postgres.replication_password_file, &postgres.application_password_file];
            sources.extend(files);
        }
        sources.extend(datastore.redis.iter().map(|redis| &redis.password_file));
    }
    sources.into_iter().filter_map(|source| Some(source.read().ok()?.expose().to_owned())).collect()
}

/// A directory that only its owner may read, and that goes away.
struct Temporary(PathBuf);

impl Temporary {
    fn make() -> anyhow::Result<Temporary> {
        let path = std::env::temp_dir().join(format!("tier0-support-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make {}", path.display()))?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left of it is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Write the archive, readable by its owner only; never over a file that is there.
fn pack(directory: &Path, output: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .with_context(|| format!("make {}", output.display()))?;
    let packed = Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["-czf", "-", "tier0-support"])
        .stdin(Stdio::null())
        .output()
        .context("run tar")?;
    if !packed.status.success() {
        bail!("tar: {}: {}", packed.status, String::from_utf8_lossy(&packed.stderr).trim());
    }
    file.write_all(&packed.stdout).with_context(|| format!("write {}", output.display()))
}
