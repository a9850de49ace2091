//! The network namespaces of a lab: whether this machine allows them, making them, doing something
//! inside of one, removing them.
//!
//! Names carry the instance, so that labs do not meet, and so that what a killed lab left is found
//! without any list. Devices are the forwarder's: they end with it.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::End;

const DIRECTORY: &str = "/run/netns";
const TUN: &str = "/dev/net/tun";

/// Why a lab of namespaces cannot be had here; `None` where it can. Tries it out.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces and their devices need root".to_owned());
    }
    if let Err(error) = File::options().read(true).write(true).open(TUN) {
        return Some(format!("{TUN} cannot be opened: {error}"));
    }
    let trial = format!("tier0-trial-{}", std::process::id());
    let tried = ip(&["netns", "add", &trial]);
    let entered = tried.and_then(|()| within(Some(&trial), || ()));
    let removed = if path(&trial).exists() { ip(&["netns", "delete", &trial]) } else { Ok(()) };
    entered.and(removed).err().map(|error| format!("{error:#}"))
}

/// Make the namespaces of an instance: each with its address, and no way out yet.
pub fn create(instance: u8) -> Result<()> {
    remove_unused(instance)?;
    if let Some(name) = existing(instance).first() {
        bail!(
            "the network namespace {name} is there, and processes use it or its like: another lab \
             {instance} runs; choose another --instance"
        );
    }
    for end in End::SITES {
        let Some(name) = end.namespace(instance) else { continue };
        ip(&["netns", "add", &name])?;
        // The address is on the namespace's own loopback, so that a site that lost its link still
        // reaches itself.
        let address = format!("{}/32", end.address(instance));
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "address", "add", &address, "dev", "lo"])?;
    }
    Ok(())
}

/// Put the device of an end where it belongs, and let everything for the others go through it.
pub fn plug(end: End, instance: u8) -> Result<()> {
    let device = end.device(instance);
    let address = end.address(instance).to_string();
    let inside = end.namespace(instance);
    if let Some(name) = &inside {
        ip(&["link", "set", &device, "netns", name])?;
    }
    let run = |arguments: &[&str]| match &inside {
        Some(name) => ip(&[&["-n", name.as_str()], arguments].concat()),
        None => ip(arguments),
    };
    if inside.is_none() {
        run(&["address", "add", &format!("{address}/32"), "dev", &device])?;
    }
    // A long queue: what is lost is decided by the link's settings, not by a busy machine.
    run(&["link", "set", &device, "txqueuelen", "10000", "up"])?;
    let range = super::range(instance);
    run(&["route", "add", &range, "dev", &device, "src", &address])
}

/// Remove the namespaces of an instance. Returns how many there were.
pub fn remove(instance: u8) -> Result<usize> {
    let mut removed = 0;
    for name in existing(instance) {
        ip(&["netns", "delete", &name])?;
        removed += 1;
    }
    Ok(removed)
}

/// Remove the namespaces of an instance if no process is left in any of them: somebody else's lab
/// of the same number, in another directory, keeps its own.
pub fn remove_unused(instance: u8) -> Result<usize> {
    for name in existing(instance) {
        if !processes(&name)?.is_empty() {
            return Ok(0);
        }
    }
    remove(instance)
}

/// The names of the namespaces that an instance has.
pub fn existing(instance: u8) -> Vec<String> {
    let names = End::SITES.into_iter().filter_map(|end| end.namespace(instance));
    names.filter(|name| path(name).exists()).collect()
}

fn processes(name: &str) -> Result<Vec<String>> {
    let output = Command::new("ip").args(["netns", "pids", name]).output().context("run ip")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Do something inside of a namespace: on a thread of its own, which alone is moved. Processes and
/// sockets that are made there stay there.
pub fn within<T: Send>(namespace: Option<&str>, act: impl FnOnce() -> T + Send) -> Result<T> {
    let Some(name) = namespace else { return Ok(act()) };
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| -> Result<T> {
            let file = File::open(path(name))
                .with_context(|| format!("open the network namespace {name}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter the network namespace {name}"))?;
            Ok(act())
        });
        moved.join().map_err(|_| anyhow!("what was done inside of {name} panicked"))?
    })
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Whether an address is on some device of this namespace.
pub fn has_address(address: Ipv4Addr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn ip(arguments: &[&str]) -> Result<()> {
    let said = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .with_context(|| format!("{}: is it installed? apt-get install iproute2", said()))?;
    if !output.status.success() {
        bail!("{}: {}", said(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
