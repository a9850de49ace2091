//! The pages that an operator reads, as scenarios use them: a section's commands are run as they
//! stand there, and what the section says they show is looked for in what they print.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tier0_core::words::NodeId;
use tier0_lab::account::Account;

use super::{BINARY, RECOVERY, Stack, until};

/// A section of docs/troubleshooting.md.
pub struct Section {
    heading: &'static str,
    look: String,
    shows: Vec<String>,
    mend: Option<String>,
}

/// The whole page.
pub fn troubleshooting() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/troubleshooting.md");
    std::fs::read_to_string(path).unwrap()
}

/// The first block of shell in a text.
fn block(text: &str) -> Option<String> {
    let inside = text.split_once("```sh\n")?.1;
    Some(inside.split_once("\n```")?.0.to_owned())
}

impl Section {
    /// The section with this heading.
    pub fn of(heading: &'static str) -> Section {
        let page = troubleshooting();
        let begin = format!("\n## {heading}\n");
        let text = page.split_once(&begin).unwrap_or_else(|| panic!("no section {heading}")).1;
        let text = text.split("\n## ").next().unwrap();
        let shows = text.split_once("\nShows as ").expect("it says what its commands show").1;
        let shows = shows.split("\n\n").next().unwrap();
        let shows: Vec<String> =
            shows.split('`').skip(1).step_by(2).map(|part| part.replace('\n', " ")).collect();
        assert!(!shows.is_empty(), "{heading} does not say what its commands show");
        let mend = text.split_once("\nMend:\n").and_then(|(_, rest)| block(rest));
        Section { heading, look: block(text).expect("it has commands"), shows, mend }
    }

    /// What is not in a text although the section says that it is.
    fn missing(&self, text: &str) -> Vec<&String> {
        let fits = |line: &str, shown: &str| {
            let mut rest = line;
            shown.split('…').map(str::trim).all(|part| match rest.find(part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
        };
        self.shows.iter().filter(|shown| !text.lines().any(|line| fits(line, shown))).collect()
    }

    /// Run its commands until they show the cause.
    pub async fn shows(&self, stack: &Stack, writer: &str) {
        let found = until(RECOVERY, async || {
            let text = stack.run(&self.look, writer);
            match self.missing(&text) {
                missing if missing.is_empty() => Ok(text),
                missing => Err(format!("'{}': {missing:?} is not in\n{text}", self.heading)),
            }
        });
        println!("--- {}\n{}", self.heading, found.await.unwrap());
    }

    /// Demand that its commands show nothing of the kind: what is always there proves nothing.
    pub fn shows_nothing_yet(&self, stack: &Stack, writer: &str) {
        let text = stack.run(&self.look, writer);
        assert!(
            !self.missing(&text).is_empty(),
            "'{}' shows its cause although nothing is wrong:\n{text}",
            self.heading
        );
    }

    /// Run the commands that mend it, and look until the cause is gone.
    pub async fn mend(&self, stack: &Stack, writer: &str) {
        let mend = self.mend.as_ref().unwrap_or_else(|| panic!("'{}' has no Mend", self.heading));
        let said = stack.run(mend, writer);
        until(RECOVERY, async || {
            let text = stack.run(&self.look, writer);
            match self.missing(&text).is_empty() {
                false => Ok(()),
                true => Err(format!("'{}' does not help: {said}\n{text}", self.heading)),
            }
        })
        .await
        .unwrap();
    }
}

impl Stack {
    /// What a script of the documents prints, with the names that the documents use. Its programs
    /// are the one under test, and `psql` as the servers' user.
    pub fn run(&self, script: &str, writer: &str) -> String {
        let tools = self.directory.join("tools");
        if !tools.exists() {
            std::fs::create_dir(&tools).unwrap();
            std::os::unix::fs::symlink(BINARY, tools.join("tier0")).unwrap();
            let account = Account::unprivileged().unwrap();
            let become_it = match account.is_current() {
                true => String::new(),
                false => format!("runuser -u {} -- ", account.name),
            };
            let text = format!("#!/bin/sh\ncd / && exec {become_it}/usr/bin/psql -X \"$@\"\n");
            std::fs::write(tools.join("psql"), text).unwrap();
            let runs = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(tools.join("psql"), runs).unwrap();
        }
        let state = self.state();
        let settings = state.stack().unwrap();
        let standby = if writer == "region1" { "region2" } else { "region1" };
        let main = settings.datastore(&"main".parse().unwrap()).unwrap();
        let admin = &main.postgres.as_ref().unwrap().admin_user;
        let node = |name: &str, region: &str| {
            settings.node(&NodeId::new(name.parse().unwrap(), region.parse().unwrap())).unwrap()
        };
        let server = |region: &str| {
            let socket = self.directory.join(region).join("main/socket");
            let port = node("main", region).address.port();
            format!("host={} port={port} user={admin} dbname=postgres", socket.display())
        };
        let redis = settings.datastore(&"cache".parse().unwrap()).unwrap().redis.as_ref().unwrap();
        let sentinel =
            redis.sentinels.iter().find(|one| one.site.as_str() == "witness").unwrap().address;
        let place =
            |address: std::net::SocketAddr| format!("-h {} -p {}", address.ip(), address.port());
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", script])
            .env("PATH", path)
            .env("TIER0_API", &state.api)
            .env("TIER0_TOKEN_FILE", &state.operate_token_file)
            .env("WRITER", server(writer))
            .env("STANDBY", server(standby))
            .env("WRITER_LOG", &node("main", writer).log_file)
            .env("STANDBY_LOG", &node("main", standby).log_file)
            .env("MASTER", place(node("cache", writer).address))
            .env("SENTINEL", place(sentinel))
            .env("REDISCLI_AUTH", redis.password_file.read().unwrap().expose())
            .env("PGCONNECT_TIMEOUT", "3")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text
    }
}
