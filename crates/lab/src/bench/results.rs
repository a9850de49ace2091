//! The result files: the raw runs as JSON lines, the figures as one JSON document. Their names
//! begin with the date, so that the newest is the last by name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::machine::Build;
use super::measure::Collected;
use super::summary::{Summary, VERSION};

/// Write both; the path of the figures.
pub fn write(directory: &Path, summary: &Summary, collected: &Collected) -> Result<PathBuf> {
    let name = name(&summary.begun, &summary.build)?;
    let path = write_figures(directory, &name, summary)?;
    let mut lines = String::new();
    for run in &collected.runs {
        lines.push_str(&serde_json::to_string(run).context("a run as JSON")?);
        lines.push('\n');
    }
    for run in &collected.outages {
        lines.push_str(&serde_json::to_string(run).context("an outage as JSON")?);
        lines.push('\n');
    }
    let raw = directory.join(format!("{name}.jsonl"));
    std::fs::write(&raw, lines).with_context(|| format!("write {}", raw.display()))?;
    Ok(path)
}

/// The name of a results file, without its end.
pub(super) fn name(begun: &str, build: &Build) -> Result<String> {
    let begun: jiff::Timestamp = begun.parse().context("when the bench began")?;
    let changed = if build.working_tree == "changed" { "-changed" } else { "" };
    Ok(format!("{}-{}{changed}", begun.strftime("%Y-%m-%d-%H%M"), build.commit))
}

/// Write the figures; their path.
pub(super) fn write_figures(
    directory: &Path,
    name: &str,
    figures: &impl Serialize,
) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let path = directory.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(figures).context("the figures as JSON")?;
    std::fs::write(&path, format!("{text}\n"))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Read the figures of a bench.
pub fn read(path: &Path) -> Result<Summary> {
    read_figures(path, "a bench's figures", (VERSION, |summary: &Summary| summary.version))
}

/// Read a results file, whose form has a version: the one that is known, and where it stands.
pub(super) fn read_figures<T: DeserializeOwned>(
    path: &Path,
    what: &str,
    (known, version): (u32, fn(&T) -> u32),
) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let results: T =
        serde_json::from_str(&text).with_context(|| format!("{} is not {what}", path.display()))?;
    let found = version(&results);
    if found != known {
        bail!("{} has version {found}, this build knows {known}", path.display());
    }
    Ok(results)
}

/// The newest of these files that holds figures.
pub fn newest(paths: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .max_by(|one, other| one.file_name().cmp(&other.file_name()))
}

/// The files of a directory of results; none where there is no such directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
