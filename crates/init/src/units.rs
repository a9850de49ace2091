//! What else could start a server behind the agent's back: units that systemd starts at boot, and
//! Debian's `start.conf`. Looks at files only, so it works without systemd running.

use std::path::Path;

use tier0_config::Stack;
use tier0_core::record::DatastoreKind;

use crate::finding::{Finding, Level, operator};

/// Judge this host.
pub fn judge(units: &Path, stack: &Stack) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wants = |name: &str| {
        units.join("multi-user.target.wants").join(name).exists()
            || std::fs::symlink_metadata(units.join("multi-user.target.wants").join(name)).is_ok()
    };
    let wrong = |findings: &mut Vec<Finding>, subject: String, sentence: String, line: String| {
        findings.push(
            Finding::new(subject, "autostart", Level::Missing, sentence).by(operator([line])),
        );
    };
    for datastore in &stack.datastores {
        for node in datastore.nodes.iter().filter(|node| node.data_directory.exists()) {
            let subject = format!("{}.{}", datastore.name, node.region);
            let mut found = false;
            match (datastore.kind, &node.adopted) {
                (DatastoreKind::Postgres, Some(adopted)) => {
                    let directory = &adopted.config_directory;
                    let start = directory.join("start.conf");
                    let says = std::fs::read_to_string(&start).unwrap_or_default();
                    if says.lines().any(|line| line.trim() == "auto") {
                        found = true;
                        let sentence =
                            format!("{} says auto: the system starts it at boot", start.display());
                        let line = format!("echo manual > {}", start.display());
                        wrong(&mut findings, subject.clone(), sentence, line);
                    }
                    if let Some(unit) = debian_unit(directory)
                        && wants(&unit)
                    {
                        found = true;
                        let sentence = format!("{unit} is enabled: the system starts it at boot");
                        wrong(
                            &mut findings,
                            subject.clone(),
                            sentence,
                            format!("systemctl disable {unit}"),
                        );
                    }
                }
                (DatastoreKind::Redis, _) if is_debians_redis(&node.data_directory) => {
                    for unit in ["redis-server.service", "redis.service"] {
                        if wants(unit) {
                            found = true;
                            let sentence =
                                format!("{unit} is enabled: the system starts it at boot");
                            wrong(
                                &mut findings,
                                subject.clone(),
                                sentence,
                                format!("systemctl disable {unit}"),
                            );
                        }
                    }
                }
                (DatastoreKind::Redis, _) | (DatastoreKind::Postgres, None) => {}
            }
            if !found {
                let sentence = "no unit of this host starts it at boot";
                findings.push(Finding::new(subject, "autostart", Level::Ok, sentence));
            }
        }
    }
    findings
}

/// Whether the packaged unit's Redis is the one with this data directory.
fn is_debians_redis(directory: &Path) -> bool {
    let text = std::fs::read_to_string("/etc/redis/redis.conf").unwrap_or_default();
    let dir = text.lines().filter_map(|line| line.trim().strip_prefix("dir ")).next_back();
    // The file may be readable by its server only; the package's own directory is known.
    Path::new(dir.map_or("/var/lib/redis", str::trim)) == directory
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
