//! What the tests with real servers share: running as an unprivileged user, and free ports.

// Every test file uses its own part of this, and fails by panicking.
#![allow(dead_code, clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tier0_lab::account::Account;

#[path = "../../../redis/tests/harness/address.rs"]
mod address;
pub mod postgres;
pub mod redis_server;

pub use address::free_address;

/// Who goes on with the test.
#[derive(Debug, PartialEq, Eq)]
pub enum Runner {
    /// This process.
    Here,
    /// A copy of it that runs as an unprivileged user has already done it.
    Elsewhere,
}

/// PostgreSQL refuses root: as root, run this one test again as an unprivileged user, from a copy
/// of the test program where that user can reach it.
pub fn as_unprivileged(test: &str) -> Runner {
    let account = Account::unprivileged().unwrap();
    if account.is_current() {
        return Runner::Here;
    }
    let directory = tempfile::Builder::new().prefix("tier0-test-").tempdir_in("/tmp").unwrap();
    account.own(directory.path()).unwrap();
    let program = directory.path().join("test");
    // By another process: a child that another test forks just now would inherit the open file,
    // and a file that is open for writing cannot be run.
    let own = std::env::current_exe().unwrap();
    assert!(std::process::Command::new("cp").arg(own).arg(&program).status().unwrap().success());
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = account
        .command(&program, directory.path())
        .env("TMPDIR", directory.path())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed as user {}", account.name);
    Runner::Elsewhere
}

/// A directory of the test's own, short enough for Unix sockets.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("t0-").tempdir_in("/tmp").unwrap()
}

/// Where PostgreSQL's programs are.
pub fn postgres_programs() -> PathBuf {
    let mut problems = Vec::new();
    tier0_lab::preflight::find_programs(&mut problems)
        .unwrap_or_else(|| panic!("{problems:?}"))
        .postgres_directory
}
