//! Small file systems of their own for the nodes and agents of a lab, so that one can be full, or take
//! nothing more, without the machine doing so: an image file each, mounted with a loop device.
//!
//! What is mounted below a lab's directory is found in the kernel's list, not in one of ours. That a
//! disk is stuck cannot be asked of the kernel, and is noted beside its image.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::FallocateFlags;
use tier0_config::Stack;

use crate::account::Account;
use crate::files;
use crate::state::LabState;

/// Room for a small database with its WAL and archive. The image takes only what is written.
const BYTES: u64 = 1 << 30;
/// What fills a disk.
const BALLAST: &str = "ballast";

/// Whether the nodes of a lab have file systems of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// They share the machine's.
    Shared,
    /// Each has a small one.
    Own,
}

/// A disk of a lab: what it is for, as `lab status` names it, and where it is mounted.
pub fn all(stack: &Stack) -> Vec<(String, PathBuf)> {
    let nodes = stack.datastores.iter().flat_map(|datastore| {
        datastore.nodes.iter().filter_map(|node| {
            let place = node.data_directory.parent()?.to_owned();
            Some((format!("{}.{}", datastore.name, node.region), place))
        })
    });
    let agents = stack.agents.iter();
    nodes
        .chain(agents.map(|one| (format!("agent.{}", one.region), one.state_directory.clone())))
        .collect()
}

/// Make and mount the disks of a lab that is about to be laid out.
pub fn mount(directory: &Path, stack: &Stack, account: &Account) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("file systems of their own need root");
    }
    let images = directory.join("disks");
    files::create_directory(&images, account)?;
    for (name, place) in all(stack) {
        files::create_directory(&place, account)?;
        let image = images.join(format!("{name}.img"));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&image);
        file.and_then(|file| file.set_len(BYTES))
            .with_context(|| format!("make {}", image.display()))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop,nodev,nosuid"]).arg(&image).arg(&place))?;
        account.own(&place)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&place, private)
            .with_context(|| format!("close {} to others", place.display()))?;
    }
    Ok(())
}

/// Unmount whatever is mounted below a directory. Returns how many there were.
pub fn unmount(directory: &Path) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("list what is mounted")?;
    let mounted = text.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = mounted.filter(|place| place.starts_with(directory)).collect();
    below.sort();
    for place in below.iter().rev() {
        // A process that was killed may hold a file for another moment: the rest is left to the
        // kernel then.
        let gentle = run(Command::new("umount").arg(place));
        if gentle.is_err() {
            run(Command::new("umount").arg("--lazy").arg(place))?;
        }
    }
    Ok(below.len())
}

/// Fill a disk up. Returns how many bytes that took.
pub fn fill(state: &LabState, name: &str) -> Result<u64> {
    let place = disk(state, name)?;
    let path = place.join(BALLAST);
    let file = File::options().append(true).create(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let mut size = file.metadata().context("look at the ballast")?.len();
    let mut step = BYTES;
    while step >= 4_096 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), size, step) {
            Ok(()) => size += step,
            Err(rustix::io::Errno::NOSPC) => step /= 2,
            Err(error) => return Err(error).with_context(|| format!("fill {}", place.display())),
        }
    }
    Ok(size)
}

/// Whether a disk was filled by us.
pub fn is_full(place: &Path) -> bool {
    place.join(BALLAST).exists()
}

/// Make room again. Returns whether there was any to make.
pub fn empty(place: &Path) -> Result<bool> {
    match std::fs::remove_file(place.join(BALLAST)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("make room in {}", place.display())),
    }
}

/// Let a disk take nothing more: whoever writes to it or flushes waits, and cannot be killed.
pub fn stick(state: &LabState, name: &str) -> Result<()> {
    let place = disk(state, name)?;
    let note = note(&state.directory, name);
    std::fs::write(&note, "").with_context(|| format!("write {}", note.display()))?;
    run(Command::new("fsfreeze").arg("--freeze").arg(&place))
}

/// Whether a disk was stuck by us.
pub fn is_stuck(directory: &Path, name: &str) -> bool {
    note(directory, name).exists()
}

/// Let a disk that was stuck go on. Returns whether it was.
pub fn release(directory: &Path, name: &str, place: &Path) -> Result<bool> {
    if !is_stuck(directory, name) {
        return Ok(false);
    }
    // One that was not stuck after all says that its argument is invalid.
    let released = run(Command::new("fsfreeze").arg("--unfreeze").arg(place));
    let note = note(directory, name);
    std::fs::remove_file(&note).with_context(|| format!("remove {}", note.display()))?;
    match released {
        Err(error) if !error.to_string().contains("Invalid argument") => Err(error),
        Ok(()) | Err(_) => Ok(true),
    }
}

fn note(directory: &Path, name: &str) -> PathBuf {
    directory.join("disks").join(format!("{name}.stuck"))
}

/// Where the disk of this name is, if it is one of its own.
fn disk(state: &LabState, name: &str) -> Result<PathBuf> {
    let disks = all(&state.stack()?);
    let Some((_, place)) = disks.iter().find(|(of, _)| of == name) else {
        let names: Vec<&str> = disks.iter().map(|(name, _)| name.as_str()).collect();
        bail!("{name} has no disk; these have: {}", names.join(", "));
    };
    let device = |path: &Path| {
        path.metadata()
            .map(|metadata| metadata.dev())
            .with_context(|| format!("look at {}", path.display()))
    };
    if device(place)? == device(&state.directory)? {
        bail!(
            "{} is on the machine's own disk, which is not filled; bring the lab up with: \
             tier0 lab up --own-disks",
            place.display()
        );
    }
    Ok(place.clone())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
