//! What beside the agent would start this node's server at boot: Debian's `start.conf`, its unit, or
//! any enabled service that names the data directory.

use std::path::Path;

use tier0_config::{Autostart, NodeSettings, enabled_units, units_that_name};

/// Everything that is found; nothing where only the agent starts it.
pub fn autostart(node: &NodeSettings, units: &Path) -> Vec<Autostart> {
    let mut found = Vec::new();
    if let Some(adopted) = &node.adopted {
        let directory = &adopted.config_directory;
        let start = directory.join("start.conf");
        let says = std::fs::read_to_string(&start).unwrap_or_default();
        if says.lines().any(|line| line.trim() == "auto") {
            found.push(Autostart {
                sentence: format!("{} says auto: the system starts it at boot", start.display()),
                remedy: format!("echo manual > {}", start.display()),
            });
        }
        if let Some(unit) = debian_unit(directory)
            && enabled_units(units).iter().any(|(name, _)| *name == unit)
        {
            found.push(Autostart::unit(&unit));
        }
    }
    found.extend(units_that_name(units, &node.data_directory));
    found
}

/// `/etc/postgresql/15/main` is `postgresql@15-main.service`.
fn debian_unit(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?;
    let version = directory.parent()?.file_name()?.to_str()?;
    version.parse::<u32>().ok()?;
    Some(format!("postgresql@{version}-{name}.service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_cluster_has_a_unit() {
        let unit = |path: &str| debian_unit(Path::new(path));
        assert_eq!(unit("/etc/postgresql/15/main").as_deref(), Some("postgresql@15-main.service"));
        assert_eq!(unit("/srv/db/data"), None);
    }
}
