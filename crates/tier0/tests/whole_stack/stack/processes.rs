//! The stack's processes: which there are, ending, freezing and starting them, one or a whole
//! region. Signals go to process numbers that were just looked up, never to names.

use std::collections::BTreeSet;

use rustix::process::Signal;
use tier0_lab::processes::{self, Identity};
use tier0_lab::status::{self, LabStatus};
use tier0_lab::up;

use super::Stack;

impl Stack {
    /// What `lab status` shows.
    pub fn look(&self) -> LabStatus {
        status::look(&self.state()).unwrap()
    }

    /// The process of this name, if it runs.
    pub fn process(&self, name: &str) -> Option<Identity> {
        let all = self.look().processes;
        let found = all.iter().find(|process| process.name == name);
        let found = found.unwrap_or_else(|| panic!("the stack has no process {name}"));
        found.pid.and_then(processes::identify)
    }

    /// SIGKILL it, and wait until it is gone.
    pub fn kill(&self, name: &str) {
        let process = self.process(name).unwrap_or_else(|| panic!("{name} does not run"));
        kill(process);
    }

    /// Start it again.
    pub fn start_again(&self, name: &str) {
        let variable = "TIER0_FAILPOINT_FILE".to_owned();
        let value = self.failpoint_file().display().to_string();
        up::restart(&mut self.state(), name, &[(variable, value)]).unwrap();
    }

    /// Every process of a region: what the lab started there, what works in its directories, and
    /// the children of both.
    pub fn of_region(&self, region: &str) -> Vec<Identity> {
        let state = self.state();
        let place = self.directory.join(region);
        let started: BTreeSet<i32> = state
            .started
            .iter()
            .filter(|one| one.site.as_str() == region)
            .map(|one| one.process.pid)
            .collect();
        let all = processes::of_lab(&self.directory, state.uid);
        let mut found: BTreeSet<i32> = all
            .iter()
            .filter(|one| started.contains(&one.identity.pid) || one.directory.starts_with(&place))
            .map(|one| one.identity.pid)
            .collect();
        loop {
            let children: Vec<i32> = all
                .iter()
                .filter(|one| found.contains(&one.parent) && !found.contains(&one.identity.pid))
                .map(|one| one.identity.pid)
                .collect();
            if children.is_empty() {
                break;
            }
            found.extend(children);
        }
        let of_it = all.iter().filter(|one| found.contains(&one.identity.pid));
        of_it.map(|one| one.identity).collect()
    }

    /// SIGKILL every process of a region. Returns how many there were.
    pub fn kill_region(&self, region: &str) -> usize {
        let mut killed = 0;
        loop {
            let all = self.of_region(region);
            if all.is_empty() {
                return killed;
            }
            killed += all.len();
            all.into_iter().for_each(kill);
        }
    }

    /// SIGSTOP every process of a region.
    pub fn freeze_region(&self, region: &str) -> Vec<Identity> {
        let mut frozen = BTreeSet::new();
        loop {
            let new: Vec<Identity> = self
                .of_region(region)
                .into_iter()
                .filter(|process| frozen.insert(*process))
                .collect();
            if new.is_empty() {
                return frozen.into_iter().collect();
            }
            new.into_iter().for_each(|process| processes::signal(process, Signal::STOP));
        }
    }

    /// What the lab itself starts in a region.
    pub fn started_in(&self, region: &str) -> Vec<String> {
        let state = self.state();
        let here = state.started.into_iter().filter(|one| one.site.as_str() == region);
        here.map(|one| one.name).collect()
    }
}

/// Let processes go on.
pub fn thaw(frozen: &[Identity]) {
    frozen.iter().for_each(|process| processes::signal(*process, Signal::CONT));
}

/// SIGKILL, and wait until it is gone.
pub fn kill(process: Identity) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while processes::is_running(process) {
        assert!(std::time::Instant::now() < deadline, "{} does not end", process.pid);
        processes::signal(process, Signal::KILL);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Wait until a dead process is off the process table. The machine's first process may take a
/// second or two for that, and PostgreSQL believes until then that it runs.
pub async fn taken_off(process: Identity) {
    let place = std::path::Path::new("/proc").join(process.pid.to_string());
    super::until(std::time::Duration::from_secs(10), async || match place.exists() {
        true => Err(format!("{} was not taken off by its parent", process.pid)),
        false => Ok(()),
    })
    .await
    .unwrap();
}
