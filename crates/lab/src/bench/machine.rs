//! What the figures depend on: the machine, the servers' versions, the build, and how busy the
//! machine was with other things.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The machine and the servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// PostgreSQL's version.
    pub postgres: String,
    /// Redis' version.
    pub redis: String,
    /// The part of the processors' time that was idle in the second before the lab came up: how
    /// quiet the machine was.
    pub idle_before: f64,
    /// The load average over a minute at that time.
    pub load_before: f64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// What `tier0 --version` says.
    pub version: String,
    /// The commit in it.
    pub commit: String,
    /// Whether the working tree had changes that are in no commit: `clean`, `changed`, `unknown`.
    pub working_tree: String,
    /// The compiler's profile.
    pub profile: String,
}

impl Machine {
    /// Look. Takes a second.
    pub async fn look() -> Machine {
        let mut problems = Vec::new();
        let programs = crate::preflight::find_programs(&mut problems);
        let version = |program: Option<&Path>| {
            program
                .and_then(|program| output(Command::new(program).arg("--version")))
                .and_then(|text| find_version(&text))
                .unwrap_or_else(|| "unknown".to_owned())
        };
        let postgres = programs.as_ref().map(|found| found.postgres_directory.join("postgres"));
        let load_before = load_average();
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field("/proc/cpuinfo", "model name"),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .split(' ')
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease"),
            postgres: version(postgres.as_deref()),
            redis: version(programs.as_ref().map(|found| found.redis_server.as_path())),
            idle_before: idle_for(Duration::from_secs(1)).await,
            load_before,
        }
    }
}

impl Build {
    /// Ask the binary that the lab runs, and git about the working tree.
    pub fn of(binary: &Path) -> Build {
        let version = output(Command::new(binary).arg("--version"));
        let version = version.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
        let commit = version
            .split_once('(')
            .and_then(|(_, rest)| rest.split(')').next())
            .filter(|commit| commit.chars().all(|letter| letter.is_ascii_hexdigit()))
            .map_or_else(|| "unknown".to_owned(), str::to_owned);
        let mut git = Command::new("git");
        git.args(["status", "--porcelain", "--", "crates", "Cargo.lock", "Cargo.toml"]);
        let working_tree = match output(&mut git) {
            Some(text) if text.trim().is_empty() => "clean",
            Some(_) => "changed",
            None => "unknown",
        };
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        Build {
            version,
            commit,
            working_tree: working_tree.to_owned(),
            profile: profile.to_owned(),
        }
    }

    /// What was measured, as the documents say it.
    pub fn words(&self) -> String {
        let changed = match self.working_tree.as_str() {
            "clean" => "",
            _ => " with uncommitted changes",
        };
        format!("commit {}{changed} ({} build)", self.commit, self.profile)
    }
}

/// The load average over a minute.
pub fn load_average() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// How much data of files waits in memory to be written, in KiB.
pub fn dirty_kib() -> u64 {
    field("/proc/meminfo", "Dirty")
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// How long the disk takes to make one page durable there: what every commit waits for, and what
/// others' use of the disk prolongs. `None` where it cannot be tried.
pub async fn page_sync(directory: &Path) -> Option<Duration> {
    let path = directory.join("page-sync");
    let trying = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::create(path)?;
        file.write_all(&[1; 8192])?;
        let began = Instant::now();
        file.sync_data()?;
        Ok::<Duration, std::io::Error>(began.elapsed())
    });
    trying.await.ok()?.ok()
}

async fn idle_for(time: Duration) -> f64 {
    let (idle_before, all_before) = processor_ticks();
    tokio::time::sleep(time).await;
    let (idle, all) = processor_ticks();
    let all = all.saturating_sub(all_before).max(1);
    idle.saturating_sub(idle_before) as f64 / all as f64
}

fn processor_ticks() -> (u64, u64) {
    let text = read("/proc/stat");
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    // The fourth is idle, the fifth waits for a disk.
    (ticks.iter().skip(3).take(2).sum(), ticks.iter().sum())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> String {
    read(path)
        .lines()
        .find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first number with a dot in what a program says of itself.
fn find_version(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches("v="))
        .find(|word| {
            word.contains('.') && word.chars().next().is_some_and(|one| one.is_ascii_digit())
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_servers_say() {
        let postgres = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)";
        assert_eq!(find_version(postgres).as_deref(), Some("15.14"));
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(find_version(redis).as_deref(), Some("7.0.15"));
    }
}
