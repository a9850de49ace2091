//! The lab's view of the orchestrator's API: status, and a commanded failover.
//!
//! It reads the answers loosely, as any client would, so that it also shows what a newer
//! orchestrator adds.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tier0_config::Secret;

use crate::state::LabState;

/// Longer than any step's limit: the answer of a failover is worth waiting for.
const FAILOVER_DEADLINE: Duration = Duration::from_secs(30);
const READ_DEADLINE: Duration = Duration::from_secs(2);

/// A client of one orchestrator.
#[derive(Debug, Clone)]
pub struct Api {
    bases: Vec<String>,
    token: Secret,
    client: reqwest::Client,
}

/// The answer to a commanded failover, whatever its status.
#[derive(Debug)]
pub struct FailoverAnswer {
    /// The HTTP status.
    pub status: u16,
    /// What it said.
    pub body: Value,
}

impl FailoverAnswer {
    /// A time in seconds, by the path of its fields.
    pub fn seconds(&self, pointer: &str) -> Option<f64> {
        self.body.pointer(pointer).and_then(Value::as_f64)
    }
}

impl Api {
    /// The API of a lab.
    pub fn of(state: &LabState) -> Result<Api> {
        Ok(Api {
            bases: state.apis(),
            token: Secret::from_file(&state.operate_token_file)?,
            client: reqwest::Client::builder()
                .connect_timeout(Duration::from_millis(500))
                .no_proxy()
                .build()
                .context("HTTP client")?,
        })
    }

    /// Ask the first orchestrator that can be connected to: any of them passes on what it is asked.
    async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        within: Duration,
    ) -> reqwest::Result<reqwest::Response> {
        let mut bases = self.bases.iter().peekable();
        loop {
            let base = bases.next().map_or("", String::as_str);
            let asked = self
                .client
                .request(method.clone(), format!("{base}{path}"))
                .header("Authorization", format!("Bearer {}", self.token.expose()))
                .timeout(within)
                .send()
                .await;
            match asked {
                // A command that was sent may have had an effect: it is not sent again.
                Err(error)
                    if bases.peek().is_some()
                        && (error.is_connect() || method == reqwest::Method::GET) => {}
                asked => return asked,
            }
        }
    }

    /// `GET /status`.
    pub async fn status(&self) -> Result<Value> {
        let answer = self
            .ask(reqwest::Method::GET, "/status", READ_DEADLINE)
            .await
            .context("ask the orchestrator")?;
        let status = answer.status();
        if !status.is_success() {
            bail!("GET /status answered {status}");
        }
        answer.json().await.context("read the orchestrator's answer")
    }

    /// `POST /failover/{region}`.
    pub async fn failover(&self, region: &str) -> Result<FailoverAnswer> {
        let answer = self
            .ask(reqwest::Method::POST, &format!("/failover/{region}"), FAILOVER_DEADLINE)
            .await
            .context("command the failover")?;
        let status = answer.status().as_u16();
        let body = answer.json().await.context("read the answer to the failover")?;
        Ok(FailoverAnswer { status, body })
    }

    /// Wait until the stack is protected and nothing is under way, for at most `limit`. Returns
    /// the last status seen, and whether it is so.
    pub async fn wait_protected(&self, limit: Duration) -> (Option<Value>, Protected) {
        let deadline = tokio::time::Instant::now() + limit;
        let mut last = None;
        loop {
            if let Ok(status) = self.status().await {
                let text = |name: &str| status.get(name).and_then(Value::as_str);
                let idle = status.get("operation").is_none_or(Value::is_null);
                if text("protection") == Some("protected") && idle {
                    return (Some(status), Protected::Yes);
                }
                last = Some(status);
            }
            if tokio::time::Instant::now() >= deadline {
                return (last, Protected::No);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether the stack became protected in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protected {
    /// It is.
    Yes,
    /// Not yet.
    No,
}
