//! All processes of a site: killed, stopped and let go on together, and started again later.
//!
//! The agent goes first, so that it cannot report, or start again, what dies after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::frozen;
use crate::processes::{self, Identity, Process};
use crate::state::LabState;
use crate::up;

const LIMIT: Duration = Duration::from_secs(3);

/// Kill every process of a region, and wait until they are gone. Returns how many there were.
pub async fn kill(state: &LabState, region: &str) -> Result<usize> {
    let deadline = Instant::now() + LIMIT;
    let mut killed = BTreeSet::new();
    for one in state.started.iter().filter(|one| one.site.as_str() == region) {
        if processes::is_running(one.process) {
            processes::signal(one.process, Signal::KILL);
            killed.insert(one.process);
        }
    }
    loop {
        let left = members(state, region);
        if left.is_empty() {
            return Ok(killed.len());
        }
        killed.extend(&left);
        if Instant::now() >= deadline {
            bail!("{} processes of {region} survive being killed", left.len());
        }
        for identity in left {
            processes::signal(identity, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Start again what the lab itself had started there and does not run. The data servers are the
/// agent's business.
pub fn start_again(state: &mut LabState, region: &str) -> Result<Vec<String>> {
    let names: Vec<String> = state
        .started
        .iter()
        .filter(|one| one.site.as_str() == region && !processes::is_running(one.process))
        .map(|one| one.name.clone())
        .collect();
    for name in &names {
        up::restart(state, name, &[])?;
    }
    Ok(names)
}

/// Stop every process of a region where it is, also those that begin meanwhile.
pub fn freeze(state: &LabState, region: &str) -> Result<usize> {
    let mut frozen = BTreeSet::new();
    let started = state.started.iter().filter(|one| one.site.as_str() == region);
    let mut new: Vec<Identity> = started.map(|one| one.process).collect();
    while !new.is_empty() {
        frozen::freeze(state, &new)?;
        frozen.extend(new);
        let all = members(state, region);
        new = all.into_iter().filter(|one| !frozen.contains(one)).collect();
    }
    Ok(frozen.len())
}

/// Every process of a region.
pub fn members(state: &LabState, region: &str) -> Vec<Identity> {
    let all = processes::of_lab(&state.directory, state.uid);
    let started: BTreeSet<Identity> = state
        .started
        .iter()
        .filter(|one| one.site.as_str() == region)
        .map(|one| one.process)
        .collect();
    belonging(&all, &started, &state.directory.join(region))
}

/// What was started for the region, works in its directory, or descends from such a process.
fn belonging(all: &[Process], started: &BTreeSet<Identity>, directory: &Path) -> Vec<Identity> {
    let mut found: BTreeSet<Identity> = all
        .iter()
        .filter(|one| started.contains(&one.identity) || one.directory.starts_with(directory))
        .map(|one| one.identity)
        .collect();
    loop {
        let parents: BTreeSet<i32> = found.iter().map(|one| one.pid).collect();
        let before = found.len();
        found
            .extend(all.iter().filter(|one| parents.contains(&one.parent)).map(|one| one.identity));
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Owner;

    #[test]
    fn helpers_of_an_agent_die_with_their_region_and_others_live() {
        let process = |pid, parent, directory: &str| Process {
            identity: Identity { pid, start_time: 1 },
            parent,
            program: "p".to_owned(),
            directory: directory.into(),
            owner: Owner::Lab,
        };
        let all = [
            process(10, 1, "/lab"),
            process(11, 10, "/lab"),
            process(12, 11, "/lab"),
            process(13, 1, "/lab/region1/main/data"),
            process(20, 1, "/lab"),
            process(23, 1, "/lab/region2/main/data"),
        ];
        let started = BTreeSet::from([Identity { pid: 10, start_time: 1 }]);
        let found = belonging(&all, &started, Path::new("/lab/region1"));
        let pids: Vec<i32> = found.iter().map(|one| one.pid).collect();
        assert_eq!(pids, [10, 11, 12, 13]);
    }
}
