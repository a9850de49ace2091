//! Starting the Sentinels of a lab, one per site, by the script that is also for real hosts.
//!
//! One Sentinel watches every Redis datastore of the stack. The script looks after the first of
//! them when a Sentinel comes back; tier0's agents tell it about all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tier0_config::{SentinelSettings, Stack};
use tier0_core::words::Site;
use tier0_redis::{SentinelConf, sentinel_conf};

use crate::account::Account;
use crate::files;
use crate::launch::{Launcher, Program, User};
use crate::placement::Place;
use crate::preflight::Programs;
use crate::state::{Kind, Started};

/// How many Sentinels must agree that a master is down, as configured; with `authority = "tier0"`
/// the agents raise it at run time.
const QUORUM: u32 = 2;
const FAILOVER_TIMEOUT_MS: u64 = 10_000;
const SCRIPT: &str = include_str!("../../../deploy/sentinel/start-sentinel.sh");

/// Start them all.
pub fn start(stack: &Stack, launcher: &Launcher, programs: &Programs) -> Result<Vec<Started>> {
    let Some(settings) = stack.datastores.iter().find_map(|datastore| datastore.redis.as_ref())
    else {
        return Ok(Vec::new());
    };
    settings
        .sentinels
        .iter()
        .map(|sentinel| start_one(stack, launcher, programs, &sentinel.site))
        .collect()
}

/// Start the one of a site; also one that ran before, which keeps what it knew.
pub fn start_one(
    stack: &Stack,
    launcher: &Launcher,
    programs: &Programs,
    site: &Site,
) -> Result<Started> {
    let datastore = stack.datastores.iter().find(|datastore| datastore.redis.is_some());
    let datastore = datastore.context("the stack has no Redis")?;
    let settings = datastore.redis.as_ref().context("Redis settings")?;
    let home = datastore.node(&Place::Region1.region()).context("no node at home")?;
    let sentinel = settings.sentinels.iter().find(|sentinel| sentinel.site == *site);
    let sentinel = sentinel.with_context(|| format!("{site} has no Sentinel"))?;
    let script = launcher.directory.join("start-sentinel.sh");
    files::write_program(&script, SCRIPT.as_bytes(), &launcher.account)?;
    let name = format!("sentinel.{site}");
    let directory = launcher.directory.join(site.as_str()).join("sentinel");
    files::create_directory(&directory, &launcher.account)?;
    let log = launcher.directory.join("logs").join(format!("{name}.log"));
    let template = write_template(stack, sentinel, &directory, &log, &launcher.account)?;
    let others = settings.sentinels.iter().filter(|other| other.site != sentinel.site);
    let mut arguments = vec![script.into_os_string()];
    arguments.extend(others.map(|other| other.address.to_string().into()));
    let text = |path: &Path| path.display().to_string();
    let environment = [
        ("SENTINEL_TEMPLATE", text(&template)),
        ("SENTINEL_CONF", text(&directory.join("sentinel.conf"))),
        ("MASTER_NAME", settings.master_name.clone()),
        ("MASTER_HOST", home.address.ip().to_string()),
        ("MASTER_PORT", home.address.port().to_string()),
        ("QUORUM", QUORUM.to_string()),
        ("REDIS_CLI", text(&programs.redis_cli)),
        ("SENTINEL_BINARY", text(&programs.redis_sentinel)),
    ];
    let process = launcher.start(&Program {
        path: "/bin/sh".into(),
        arguments,
        environment: environment.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        end: site.as_str().parse()?,
        user: User::Lab,
        log: log.clone(),
    })?;
    Ok(Started {
        name,
        site: site.clone(),
        kind: Kind::Sentinel,
        process,
        address: sentinel.address,
        log,
        directory,
    })
}

/// The configuration that a Sentinel is first started with, for every Redis datastore.
fn write_template(
    stack: &Stack,
    sentinel: &SentinelSettings,
    directory: &Path,
    log_file: &Path,
    account: &Account,
) -> Result<PathBuf> {
    let mut text = String::new();
    for datastore in &stack.datastores {
        let Some(redis) = &datastore.redis else { continue };
        let node = datastore.node(&Place::Region1.region()).context("no node at home")?;
        let one = sentinel_conf(&SentinelConf {
            address: sentinel.address,
            directory,
            log_file,
            pid_file: &directory.join("sentinel.pid"),
            master_name: &redis.master_name,
            master: node.address,
            password: &redis.password_file.read()?,
            quorum: QUORUM,
            down_after_ms: redis.down_after_ms,
            failover_timeout_ms: FAILOVER_TIMEOUT_MS,
        });
        // The first brings the Sentinel's own settings, the others add what they watch.
        let own = text.is_empty();
        let lines = one.lines().filter(|line| {
            own || (line.starts_with("sentinel ") && !line.starts_with("sentinel announce-"))
        });
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    let file = directory.join("sentinel.conf.template");
    files::write_private(&file, text.as_bytes(), account)?;
    Ok(file)
}
