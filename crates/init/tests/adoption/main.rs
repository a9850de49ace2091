//! Servers made with plain commands, full of data and with clients at work, are taken over without
//! a restart and without a failed write, moved to the other region and back.
//!
//! Needs PostgreSQL 15 or newer, Redis and loopback addresses; runs the servers as `postgres` when
//! it is started by root.
#![allow(clippy::unwrap_used)]

mod clients;
mod servers;

use std::process::Command;
use std::time::{Duration, Instant};

use clients::Writer;
use servers::{Layout, Servers};

/// How long the stack may take to be protected.
const PROTECTED: Duration = Duration::from_secs(60);

#[test]
fn running_servers_are_adopted_moved_and_moved_back() {
    adopt(Servers::make(Layout::Plain));
}

#[test]
fn clusters_of_debians_own_layout_are_adopted_moved_and_moved_back() {
    let found = Command::new("pg_createcluster").arg("--version").output();
    assert!(found.is_ok(), "pg_createcluster is missing: install postgresql-common");
    let servers = Servers::make(Layout::Debian);
    let looked = servers.init(&[]);
    let text = String::from_utf8_lossy(&looked.stdout).into_owned();
    assert!(text.contains("start.conf says auto: the system starts it at boot"), "{text}");
    servers.start_conf("manual");
    let servers = adopt(servers);

    // Somebody gives the servers back to the system: the agents see it.
    let check = |ready: bool, autostart: bool| {
        until(PROTECTED, || {
            let (is_ready, said) = servers.check();
            let named = said.contains("start.conf says auto");
            if is_ready == ready && named == autostart { Ok(()) } else { Err(said) }
        });
    };
    check(true, false);
    servers.start_conf("auto");
    check(false, true);
    servers.start_conf("manual");
    check(true, false);
}

fn adopt(mut servers: Servers) -> Servers {
    let before = servers.process_numbers();
    let writer = Writer::start(&servers);

    let looked = servers.init(&[]);
    assert!(!looked.status.success(), "nothing was adopted and all was found");
    let text = String::from_utf8_lossy(&looked.stdout).into_owned();
    for line in ["CREATE ROLE \"tier0_admin\" SUPERUSER LOGIN;", "include_if_exists 'tier0.conf'"] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains(servers::SUPERUSER_PASSWORD), "a secret is shown");
    assert!(!text.contains(servers::REDIS_PASSWORD), "a secret is shown");
    let unconfirmed = servers.init(&["--apply"]);
    assert!(String::from_utf8_lossy(&unconfirmed.stdout).contains("nothing was changed"));

    let applied = servers.init(&["--apply", "--yes"]);
    let said = String::from_utf8_lossy(&applied.stdout).into_owned();
    let errors = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success(), "{said}\n{errors}");
    assert!(said.contains("waiting for the next start: wal_log_hints"), "{said}");
    assert!(servers.init(&["--apply", "--yes"]).status.success(), "the second time");

    servers.start_roles();
    servers.wait_protected("region1", PROTECTED);
    std::thread::sleep(Duration::from_secs(1));
    let (acknowledged, failed) = writer.stop();
    assert!(acknowledged.len() > 50, "{} writes", acknowledged.len());
    assert_eq!(failed, Vec::<String>::new(), "writes failed while the servers were adopted");
    assert_eq!(servers.process_numbers(), before, "a server was restarted");

    for region in ["region2", "region1"] {
        servers.failover(region);
        assert_eq!(servers.missing(region, &acknowledged), 0, "lost in {region}");
        servers.write_as_client(region);
        servers.wait_protected(region, PROTECTED);
    }
    servers.operators_lines_are_there();

    // The servers outlive the agents, and are known again by the next ones.
    let before = servers.process_numbers();
    servers.stop_agents();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(servers.process_numbers(), before, "a server went down with its agent");
    servers.start_agents();
    servers.wait_protected("region1", PROTECTED);
    assert_eq!(servers.process_numbers(), before, "a server was started anew");
    servers
}

/// Run a command to its end and panic with its output unless it worked.
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{errors}", output.status);
    said
}

/// Ask again and again until it is so.
pub fn until(limit: Duration, mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + limit;
    loop {
        match holds() {
            Ok(()) => return,
            Err(why) if Instant::now() > deadline => panic!("not within {limit:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
