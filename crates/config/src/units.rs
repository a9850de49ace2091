//! What systemd starts at boot on this host. Looks at files only, so it works where systemd does not
//! run. Left out: timers, sockets and other ways to start something; what a unit is for, its adapter
//! knows.

use std::path::Path;

/// Something other than the agent that would start a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autostart {
    /// What it is.
    pub sentence: String,
    /// The shell line that ends it.
    pub remedy: String,
}

impl Autostart {
    /// A unit that is enabled.
    pub fn unit(name: &str) -> Autostart {
        Autostart {
            sentence: format!("{name} is enabled: the system starts it at boot"),
            remedy: format!("systemctl disable {name}"),
        }
    }
}

/// The services that are enabled below a directory of units, with their text as far as it can be
/// read.
pub fn enabled_units(units: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let within = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    for target in within(units) {
        let name = target.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".wants") && !name.ends_with(".requires") {
            continue;
        }
        for unit in within(&target.path()) {
            let name = unit.file_name().to_string_lossy().into_owned();
            if name.ends_with(".service") {
                let text = std::fs::read_to_string(unit.path()).unwrap_or_default();
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}

/// The enabled services that name this directory, other than tier0's own.
pub fn units_that_name(units: &Path, directory: &Path) -> Vec<Autostart> {
    let directory = directory.to_string_lossy();
    enabled_units(units)
        .into_iter()
        .filter(|(_, text)| {
            text.lines()
                .filter(|line| line.trim_start().starts_with("Exec"))
                .any(|line| line.contains(&*directory) && !line.contains("tier0 "))
        })
        .map(|(name, _)| Autostart::unit(&name))
        .collect()
}
