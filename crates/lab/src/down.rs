//! Taking a lab down: what might start servers first, then the servers, then whatever is left.
//!
//! Works from what runs, not from what was noted, so that it also ends a lab whose `up` was killed
//! half-way.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::account::Account;
use crate::fault::disk;
use crate::network::{Network, namespaces};
use crate::processes::{self, Class, Process};
use crate::progress::Progress;
use crate::state::LabState;

/// What becomes of the lab's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// They stay; servers write what they must before they end.
    Keep,
    /// They are removed; servers end at once.
    Remove,
}

const GENTLE: Duration = Duration::from_secs(3);
const FINAL: Duration = Duration::from_secs(5);

/// End every process of the lab in `directory`, and do with its files as told.
pub async fn stop(
    directory: &Path,
    account: &Account,
    data: Data,
    progress: Progress,
) -> Result<()> {
    let count = processes::of_lab(directory, account.uid).len();
    // A state that cannot be read is no reason to leave processes.
    let lab = LabState::load(directory).ok().flatten();
    // Nobody who waits for a disk can be ended.
    for (name, place) in lab.iter().filter_map(|lab| lab.stack().ok()).flat_map(|it| disk::all(&it))
    {
        disk::release(directory, &name, &place)?;
    }
    // A role that is stopped while it starts a server can leave one that the first look missed.
    end(directory, account, Class::Role, Signal::TERM, GENTLE).await;
    let server = match data {
        Data::Keep => Signal::INT,
        Data::Remove => Signal::QUIT,
    };
    end(directory, account, Class::Postmaster, server, GENTLE).await;
    end(directory, account, Class::Postmaster, Signal::QUIT, GENTLE).await;
    end(directory, account, Class::Other, Signal::TERM, GENTLE).await;
    end(directory, account, Class::Links, Signal::TERM, GENTLE).await;
    let left = kill(directory, account).await;
    if !left.is_empty() {
        let names: Vec<String> =
            left.iter().map(|one| format!("{} {}", one.program, one.identity.pid)).collect();
        bail!("these processes did not end: {}", names.join(", "));
    }
    if count > 0 {
        progress.say(format!("{count} processes ended"));
    }
    if let Some(lab) = lab.filter(|lab| lab.network == Network::Namespaces) {
        let removed = namespaces::remove(lab.instance)?;
        progress.say(format!("{removed} network namespaces removed"));
    }
    if data == Data::Remove && rustix::process::geteuid().is_root() {
        let unmounted = disk::unmount(directory)?;
        if unmounted > 0 {
            progress.say(format!("{unmounted} file systems unmounted"));
        }
    }
    if data == Data::Remove && directory.exists() {
        remove(directory, account)?;
        progress.say(format!("{} removed", directory.display()));
    }
    Ok(())
}

/// Send `signal` to all of one class, and wait for them for at most `limit`.
async fn end(directory: &Path, account: &Account, class: Class, signal: Signal, limit: Duration) {
    let deadline = Instant::now() + limit;
    let members = || -> Vec<Process> {
        let all = processes::of_lab(directory, account.uid);
        all.iter().filter(|one| one.class(&all) == class).cloned().collect()
    };
    let mut told = std::collections::BTreeSet::new();
    loop {
        let running = members();
        if running.is_empty() || Instant::now() >= deadline {
            return;
        }
        for process in running {
            if told.insert(process.identity) {
                processes::signal(process.identity, signal);
                // A process that was stopped hears nothing until it goes on.
                processes::signal(process.identity, Signal::CONT);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn kill(directory: &Path, account: &Account) -> Vec<Process> {
    let deadline = Instant::now() + FINAL;
    loop {
        let left = processes::of_lab(directory, account.uid);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        for process in &left {
            processes::signal(process.identity, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Remove the files, but only of a directory that is a lab's.
fn remove(directory: &Path, account: &Account) -> Result<()> {
    let is_lab = LabState::path(directory).is_file() || directory.join("secrets").is_dir();
    let is_empty = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if !is_lab && !is_empty {
        bail!("{} does not look like a lab: it is left alone", directory.display());
    }
    let owner = std::os::unix::fs::MetadataExt::uid(
        &directory.symlink_metadata().context("look at the lab's directory")?,
    );
    if owner != account.uid {
        bail!("{} belongs to user id {owner}: it is left alone", directory.display());
    }
    std::fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
}
