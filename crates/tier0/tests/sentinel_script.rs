//! `deploy/sentinel/start-sentinel.sh`, the specification's start script made safe: whose word on
//! the master counts. That Sentinels really start by it, every lab shows.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory with a template, gone afterwards; and perhaps a Sentinel in it.
struct Place {
    directory: PathBuf,
    sentinel: Option<Child>,
}

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("tier0-sentinel-script-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let template = "port 26379\nsentinel monitor tier0master 192.0.2.1 6379 2\n";
        std::fs::write(directory.join("template"), template).unwrap();
        Place { directory, sentinel: None }
    }

    /// The script's own `--check`: it prepares the file, prints the line, starts nothing.
    fn check(&self, host: &str, others: &[String]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"));
        Command::new("sh")
            .arg(script.join("../../deploy/sentinel/start-sentinel.sh"))
            .arg("--check")
            .args(others)
            .env("SENTINEL_TEMPLATE", self.directory.join("template"))
            .env("SENTINEL_CONF", self.directory.join("copy/sentinel.conf"))
            .env("MASTER_HOST", host)
            .env("RESOLVE_SECONDS", "0")
            .output()
            .unwrap()
    }

    /// Start a Sentinel that believes in a master, and wait until it says so.
    fn sentinel(&mut self, master: &str) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let conf = self.directory.join("other.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor tier0master {master} 6379 2\n",
            self.directory.display()
        );
        std::fs::write(&conf, text).unwrap();
        let child = Command::new("redis-server")
            .arg(&conf)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.sentinel = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = Command::new("redis-cli")
                .args(["-p", &port.to_string(), "SENTINEL", "MASTER", "tier0master"])
                .output()
                .unwrap();
            if String::from_utf8_lossy(&output.stdout).contains(master) {
                return format!("127.0.0.1:{port}");
            }
            assert!(Instant::now() < deadline, "the Sentinel does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut child) = self.sentinel.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn line(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_name_is_resolved_where_nobody_else_answers() {
    let place = Place::new("name");
    let nobody = "127.0.0.1:1".to_owned();
    let output = place.check("localhost", &[nobody]);
    assert_eq!(line(&output), "sentinel monitor tier0master 127.0.0.1 6379 2");
    let template = std::fs::read_to_string(place.directory.join("template")).unwrap();
    assert!(template.contains("192.0.2.1"), "the template was changed");
}

#[test]
fn a_name_that_does_not_resolve_is_an_error() {
    let place = Place::new("error");
    let output = place.check("no-such-host.invalid", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no-such-host.invalid did not resolve"), "{said}");
}

#[test]
fn the_other_sentinels_win_over_the_name() {
    let mut place = Place::new("others");
    let other = place.sentinel("127.0.0.9");
    let output = place.check("localhost", &["127.0.0.1:1".to_owned(), other]);
    assert_eq!(line(&output), "sentinel monitor tier0master 127.0.0.9 6379 2");
    // An earlier copy counts when nobody answers: it is newer than the template and the name.
    let mut child = place.sentinel.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let output = place.check("localhost", &[]);
    assert_eq!(line(&output), "sentinel monitor tier0master 127.0.0.9 6379 2");
}
