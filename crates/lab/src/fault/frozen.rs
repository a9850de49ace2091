//! Which processes a fault froze. It is noted, because agents stop servers too, to hold them: those
//! must go on only when their agent says so.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::account::Account;
use crate::files;
use crate::processes::{self, Identity};
use crate::state::LabState;

fn path(state: &LabState) -> PathBuf {
    state.directory.join("frozen.json")
}

/// Those that are frozen by a fault now.
pub fn all(state: &LabState) -> Result<BTreeSet<Identity>> {
    Ok(noted(state)?.into_iter().filter(|one| processes::is_frozen(*one)).collect())
}

/// Those of which it is noted; a signal may still be on its way.
fn noted(state: &LabState) -> Result<BTreeSet<Identity>> {
    let path = path(state);
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let noted: BTreeSet<Identity> =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(noted.into_iter().filter(|one| processes::is_running(*one)).collect())
}

/// SIGSTOP, noted before it is done. What is stopped already is somebody else's.
pub fn freeze(state: &LabState, processes: &[Identity]) -> Result<()> {
    let mut noted = noted(state)?;
    let go_on: Vec<&Identity> =
        processes.iter().filter(|one| !processes::is_frozen(**one)).collect();
    noted.extend(go_on.iter().copied());
    write(state, &noted)?;
    go_on.into_iter().for_each(|one| processes::signal(*one, Signal::STOP));
    Ok(())
}

/// SIGCONT to those that a fault froze. Returns how many there were.
pub fn thaw(state: &LabState, processes: &[Identity]) -> Result<usize> {
    let mut noted = noted(state)?;
    let ours: Vec<&Identity> = processes.iter().filter(|one| noted.contains(*one)).collect();
    ours.iter().for_each(|one| processes::signal(**one, Signal::CONT));
    let count = ours.len();
    if count > 0 {
        noted.retain(|one| !processes.contains(one));
        write(state, &noted)?;
    }
    Ok(count)
}

fn write(state: &LabState, noted: &BTreeSet<Identity>) -> Result<()> {
    let text = serde_json::to_vec(noted).context("what is frozen, as JSON")?;
    files::write_private(&path(state), &text, &Account::unprivileged()?)
}
