//! Files and directories of a lab: private, owned by its user, replaced whole.
//!
//! What they contain is the business of `secrets`, `state` and `plan`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};

use crate::account::Account;

/// Create a directory that only `owner` may enter, and what is missing above it.
pub fn create_directory(path: &Path, owner: &Account) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
        && !parent.is_dir()
    {
        create_directory(parent, owner)?;
    }
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create directory {}", path.display()))?;
    owner.own(path)
}

/// Write a file that only `owner` may read, by renaming a new one over it, so that a reader never
/// sees half of it.
pub fn write_private(path: &Path, content: &[u8], owner: &Account) -> Result<()> {
    write_with_mode(path, content, owner, 0o600)
}

/// Like [`write_private`], for a program.
pub fn write_program(path: &Path, content: &[u8], owner: &Account) -> Result<()> {
    write_with_mode(path, content, owner, 0o700)
}

fn write_with_mode(path: &Path, content: &[u8], owner: &Account, mode: u32) -> Result<()> {
    let mut name = path.file_name().context("a file needs a name")?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || -> Result<()> {
        if new.symlink_metadata().is_ok() {
            std::fs::remove_file(&new)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        owner.own(&new)?;
        std::fs::rename(&new, path)?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// The last lines of a text file, for messages; empty where there is no such file.
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}
