//! A stack for tests: brought up by the binary, found again by every scenario, and always taken
//! down: a guardian waits on a pipe that closes when this process ends in whatever way.

mod api;
mod page;
mod processes;
mod prometheus;
mod stores;
mod traffic;

pub use api::{Answer, Api, Ask, Token, until};
pub use page::{Section, troubleshooting};
pub use processes::{kill, taken_off, thaw};
pub use prometheus::{Prometheus, root};
pub use stores::{Sentinel, acknowledged, admin, postgres, redis, writer_session};
pub use traffic::LOSSLESS;

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tier0_lab::state::LabState;
use tokio::sync::{Mutex, MutexGuard};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tier0");

/// How long a stack may take to be protected again after something went wrong.
pub const RECOVERY: Duration = Duration::from_secs(40);

/// Whether the long scenarios were asked for.
pub fn long() -> bool {
    std::env::var_os("TIER0_LONG").is_some()
}

/// A stack with its own addresses and its own directory.
pub struct Stack {
    /// Its number among the labs of this machine.
    pub instance: u8,
    /// Where its files are.
    pub directory: PathBuf,
    guardian: Child,
    spoiled: bool,
    runs: u32,
    // Held, so that no other run of the tests takes the same number.
    _number: File,
}

impl Stack {
    /// One PostgreSQL and one Redis.
    pub fn up() -> Stack {
        Stack::up_with(&[])
    }

    /// With more arguments of `lab up`.
    pub fn up_with(arguments: &[&str]) -> Stack {
        let stack = Stack::reserve();
        // Scenarios that do not arm it command what they want.
        let off = ["--automatic", "off"];
        let output = stack.lab("up").args(off).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "lab up: {}\n{said}", output.status);
        stack
    }

    /// A number and a directory; nothing runs yet.
    pub fn reserve() -> Stack {
        let first = std::process::id() % 160;
        for offset in 0..160 {
            let instance = 20 + u8::try_from((first + offset) % 160).unwrap();
            let Ok(number) = File::create(format!("/tmp/tier0-test-{instance}.lock")) else {
                continue;
            };
            if number.try_lock().is_err() {
                continue;
            }
            let directory = PathBuf::from(format!("/tmp/tier0-test-{instance}"));
            if directory.exists() {
                // Left by a run that was killed together with its guardian.
                let _ = lab("down", instance, &directory).output();
                continue;
            }
            let guardian = guardian(instance, &directory);
            return Stack {
                instance,
                directory,
                guardian,
                spoiled: false,
                runs: 0,
                _number: number,
            };
        }
        panic!("no free number for a stack");
    }

    /// A command `tier0 lab VERB` for this stack.
    pub fn lab(&self, verb: &str) -> Command {
        let mut command = lab(verb, self.instance, &self.directory);
        command.env("TIER0_FAILPOINT_FILE", self.failpoint_file());
        command
    }

    /// The file that names the next place at which a role ends, hangs or does a thing twice.
    pub fn failpoint_file(&self) -> PathBuf {
        self.directory.join("failpoints")
    }

    /// What the lab noted about itself.
    pub fn state(&self) -> LabState {
        LabState::load(&self.directory).unwrap().expect("the lab has a state file")
    }

    /// A client of its orchestrator, for the runtime of this test.
    pub fn api(&self) -> Api {
        Api::new(&self.state())
    }

    /// Bring it to where scenarios begin: everything runs, protected, the writer at home.
    pub async fn make_home(&mut self) -> Result<(), String> {
        if self.spoiled {
            return Err("a scenario failed on the last one".to_owned());
        }
        let down: Vec<String> = self
            .look()
            .processes
            .into_iter()
            .filter(|process| process.pid.is_none())
            .map(|process| process.name)
            .collect();
        if !down.is_empty() {
            return Err(format!("these do not run: {}", down.join(", ")));
        }
        let api = self.api();
        let status = api.protected(RECOVERY).await?;
        if status["current_region"] == "region1" {
            return Ok(());
        }
        let answer = api.failover("region1").await;
        if answer.status != 200 {
            return Err(format!("the way home was answered with {answer:?}"));
        }
        api.protected(RECOVERY).await.map(|_| ())
    }

    /// The ends of its logs, for a scenario that failed.
    fn print_logs(&self) {
        let logs = self.directory.join("logs");
        // Another scenario of the same run may fail too.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let kept = PathBuf::from(format!("/tmp/tier0-test-failed-{}-{now}", self.instance));
        let _ = std::fs::create_dir_all(&kept);
        for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
            let _ = std::fs::copy(entry.path(), kept.join(entry.file_name()));
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("orchestrator") || name.starts_with("agent") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                println!("--- {name}");
                for line in &lines[lines.len().saturating_sub(25)..] {
                    println!("{line}");
                }
            }
        }
        println!("--- all logs are in {}", kept.display());
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.spoiled {
            self.print_logs();
        }
        if std::env::var_os("TIER0_KEEP").is_none() {
            let _ = self.lab("down").output();
        }
        let _ = self.guardian.kill();
        let _ = self.guardian.wait();
    }
}

fn lab(verb: &str, instance: u8, directory: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["lab", verb, "--instance", &instance.to_string(), "--directory"])
        .arg(directory)
        .stdin(Stdio::null());
    command
}

/// Takes the stack down when this process is gone.
fn guardian(instance: u8, directory: &Path) -> Child {
    let script = r#"read -r _; "$0" lab down --instance "$1" --directory "$2""#;
    Command::new("setsid")
        .args(["sh", "-c", script, BINARY, &instance.to_string()])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

static SHARED: Mutex<Option<Stack>> = Mutex::const_new(None);

/// The stack that scenarios share, for the time of one of them.
pub struct Shared(MutexGuard<'static, Option<Stack>>);

/// The shared stack: protected, the writer at home. A new one where the last scenario left
/// something that does not come right by itself.
pub async fn shared() -> Shared {
    let mut slot = SHARED.lock().await;
    let fit = match slot.as_mut() {
        Some(stack) => stack.make_home().await,
        None => Err("there is none yet".to_owned()),
    };
    if let Err(why) = fit {
        println!("a new stack is brought up: {why}");
        drop(slot.take());
        *slot = Some(Stack::up());
    }
    Shared(slot)
}

impl Deref for Shared {
    type Target = Stack;
    fn deref(&self) -> &Stack {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Stack {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
            self.spoiled = true;
        }
    }
}
