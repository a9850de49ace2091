//! What beside the agent would start this node's server at boot: Debian's unit over its data
//! directory, or any enabled service that names it.

use std::path::Path;

use tier0_config::{Autostart, NodeSettings, enabled_units, units_that_name};

/// Everything that is found; nothing where only the agent starts it.
pub fn autostart(node: &NodeSettings, units: &Path) -> Vec<Autostart> {
    let mut found = units_that_name(units, &node.data_directory);
    if is_debians(&node.data_directory) {
        let enabled = enabled_units(units);
        for unit in ["redis-server.service", "redis.service"] {
            if enabled.iter().any(|(name, _)| name == unit) {
                found.push(Autostart::unit(unit));
            }
        }
    }
    found.dedup();
    found
}

/// Whether the packaged unit's Redis is the one with this data directory.
fn is_debians(directory: &Path) -> bool {
    let text = std::fs::read_to_string("/etc/redis/redis.conf").unwrap_or_default();
    let dir = text.lines().filter_map(|line| line.trim().strip_prefix("dir ")).next_back();
    // The file may be readable by its server only; the package's own directory is known.
    Path::new(dir.map_or("/var/lib/redis", str::trim)) == directory
}
