//! Debian's Prometheus beside a stack: with the configuration and the rules of `deploy/prometheus`,
//! on a port and in a directory of its own, ended with the test in whatever way that ends.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Stack;

/// The project's own directory.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A Prometheus that scrapes a stack.
pub struct Prometheus {
    /// A shell that ends it when its standard input is closed, also because this process is gone.
    keeper: Child,
    directory: PathBuf,
    base: String,
    client: reqwest::Client,
}

impl Prometheus {
    /// Start it.
    pub fn start(stack: &Stack) -> Prometheus {
        let directory = PathBuf::from(format!("/tmp/tier0-test-prometheus-{}", stack.instance));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let deploy = root().join("deploy/prometheus");
        let look = stack.look();
        let backend = look.processes.iter().find(|one| one.kind == "telemetry-api").unwrap();
        let text = std::fs::read_to_string(deploy.join("prometheus.yml")).unwrap();
        let mut config = text.clone();
        for (there, here) in [
            ("127.0.0.1:8003", look.api.trim_start_matches("http://")),
            ("127.0.0.1:8000", &format!("{}:{}", backend.address, backend.port)),
            ("scrape_interval: 5s", "scrape_interval: 1s"),
            ("evaluation_interval: 5s", "evaluation_interval: 1s"),
        ] {
            assert!(text.contains(there), "prometheus.yml does not say {there}");
            config = config.replace(there, here);
        }
        std::fs::write(directory.join("prometheus.yml"), config).unwrap();
        let rules = "tier0.rules.yml";
        std::fs::copy(deploy.join(rules), directory.join(rules)).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let keeper = Command::new("sh")
            .args(["-c", r#""$@" & child=$!; read -r _; kill $child; wait $child"#, "sh"])
            .arg("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Prometheus { keeper, directory, base: format!("http://{address}/api/v1"), client }
    }

    /// The end of its log, for a test that fails.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// `data` of an answer.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let request = self.client.get(format!("{}/{path}", self.base));
        let answer = request.timeout(Duration::from_secs(5)).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        let body: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        match body["status"] == "success" {
            true => Ok(body["data"].clone()),
            false => Err(text),
        }
    }

    /// The samples of a query: labels and value.
    pub async fn samples(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.get(&format!("query?query={encoded}")).await?;
        let result = data["result"].as_array().ok_or_else(|| format!("{query}: {data}"))?;
        let sample = |one: &Value| {
            let value = one["value"][1].as_str()?.parse().ok()?;
            Some((one["metric"].clone(), value))
        };
        result.iter().map(|one| sample(one).ok_or_else(|| format!("{query}: {one}"))).collect()
    }

    /// The one sample of a query.
    pub async fn value(&self, query: &str) -> Result<f64, String> {
        match self.samples(query).await?.as_slice() {
            [(_, value)] => Ok(*value),
            other => Err(format!("{query} has {} samples", other.len())),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- prometheus\n{}", self.log());
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
