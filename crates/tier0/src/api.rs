//! A client of the orchestrator's API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tier0_config::Secret;
use tier0_wire::{OperationBody, Problem, RequestBody};

use crate::cli::Target;
use crate::exit::{Exit, Failure};

/// Where the orchestrator is, and with which token it is asked.
pub struct Api {
    /// Any of them passes on what it is asked to the one that acts.
    bases: Vec<String>,
    token_file: Option<PathBuf>,
    accept_loss_token_file: Option<PathBuf>,
    client: reqwest::Client,
}

/// How long an operation may take before the client stops waiting; the orchestrator stops first.
const OPERATION_WITHIN: Duration = Duration::from_secs(130);

/// How often an operation that goes on is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How long the orchestrator may be unheard of, while an operation is followed.
const SILENT_WITHIN: Duration = Duration::from_secs(60);

/// How the result of an operation that goes on is called.
const RUNNING: &str = "running";

/// How long anything else may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

impl Api {
    /// The orchestrator that is meant.
    pub fn find(target: &Target) -> anyhow::Result<Api> {
        let lab = match &target.api {
            Some(_) => None,
            None => tier0_lab::state::discover()?,
        };
        let bases = match (&target.api, &lab) {
            (Some(apis), _) => {
                apis.split(',').map(|api| api.trim().trim_end_matches('/').to_owned()).collect()
            }
            (None, Some(lab)) => lab.apis(),
            (None, None) => {
                return Err(Failure {
                    what: "no orchestrator is named, and there is no lab on this machine"
                        .to_owned(),
                    hint: Some(
                        "say --api http://HOST:8003, or bring a lab up with `tier0 lab up`"
                            .to_owned(),
                    ),
                    code: Exit::Usage,
                }
                .into());
            }
        };
        let of_lab = lab.as_ref();
        Ok(Api {
            bases,
            token_file: target
                .token_file
                .clone()
                .or_else(|| of_lab.map(|lab| lab.operate_token_file.clone())),
            accept_loss_token_file: target
                .token_file
                .clone()
                .or_else(|| of_lab.map(|lab| lab.accept_loss_token_file.clone())),
            client: reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(2))
                .no_proxy()
                .build()
                .context("build an HTTP client")?,
        })
    }

    /// Read something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(path).await?.json().await.context("read the orchestrator's answer")
    }

    /// Read something as it is.
    pub async fn get_text(&self, path: &str) -> anyhow::Result<String> {
        self.read(path).await?.text().await.context("read the orchestrator's answer")
    }

    async fn read(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        // Reading may be open: a token that cannot be read is not in the way then.
        let file = self.token_file.as_ref().filter(|file| file.exists());
        let token = file.and_then(|file| Secret::from_file(file).ok());
        let asked = self.first(|base| {
            let request = self.client.get(format!("{base}{path}")).timeout(READ_WITHIN);
            match &token {
                Some(token) => request.bearer_auth(token.expose()),
                None => request,
            }
        });
        let answer = asked.await.map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(problem(answer).await.into());
        }
        Ok(answer)
    }

    /// The answer of the first orchestrator that can be connected to. What was sent to one may have
    /// had an effect, and is not sent to the next.
    async fn first(
        &self,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
    ) -> reqwest::Result<reqwest::Response> {
        let mut bases = self.bases.iter().peekable();
        loop {
            let base = bases.next().map_or("", String::as_str);
            match request(base).send().await {
                Err(error) if error.is_connect() && bases.peek().is_some() => {}
                answered => return answered,
            }
        }
    }

    /// Ask for an operation. The body comes whether it succeeded or not; refusals are errors.
    pub async fn post(
        &self,
        path: &str,
        body: &RequestBody,
        idempotency_key: Option<&str>,
    ) -> anyhow::Result<serde_json::Value> {
        let file = if body.accept_loss { &self.accept_loss_token_file } else { &self.token_file };
        self.ask(path, file.as_ref(), body, idempotency_key).await
    }

    /// Ask for something that the operate token allows.
    pub async fn operate(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<serde_json::Value> {
        self.ask(path, self.token_file.as_ref(), body, None).await
    }

    async fn ask(
        &self,
        path: &str,
        token_file: Option<&PathBuf>,
        body: &impl Serialize,
        idempotency_key: Option<&str>,
    ) -> anyhow::Result<serde_json::Value> {
        let file = token_file.ok_or_else(|| Failure {
            what: "this needs a token".to_owned(),
            hint: Some("say --token-file FILE, or set TIER0_TOKEN_FILE".to_owned()),
            code: Exit::Usage,
        })?;
        let token = Secret::from_file(file).map_err(|error| Failure {
            what: format!("read the token: {:#}", anyhow::Error::from(error)),
            hint: None,
            code: Exit::Usage,
        })?;
        let asked = self.first(|base| {
            let request = self
                .client
                .post(format!("{base}{path}"))
                .bearer_auth(token.expose())
                .timeout(OPERATION_WITHIN)
                .json(body);
            match idempotency_key {
                Some(key) => request.header("idempotency-key", key),
                None => request,
            }
        });
        let answer = asked.await.map_err(|error| {
            if error.is_connect() {
                return self.unreachable(&error);
            }
            Failure {
                what: format!("it is not known whether the request had an effect: {error}"),
                hint: Some("look at `tier0 status` and `tier0 history`".to_owned()),
                code: Exit::Unknown,
            }
        })?;
        match answer.status().as_u16() {
            200..300 | 500 => answer.json().await.context("read the orchestrator's answer"),
            504 => self.until_over(&answer.text().await.unwrap_or_default()).await,
            _ => Err(problem(answer).await.into()),
        }
    }

    /// What has not ended when the orchestrator stops waiting is followed to its end; only what
    /// ended without anybody knowing how stays unknown.
    async fn until_over(&self, answer: &str) -> anyhow::Result<serde_json::Value> {
        if let Ok(body) = serde_json::from_str::<OperationBody>(answer)
            && body.result != RUNNING
        {
            return Ok(serde_json::from_str(answer)?);
        }
        let id = match serde_json::from_str::<Problem>(answer) {
            Ok(Problem { operation_id: Some(id), .. }) => id,
            Ok(_) | Err(_) => {
                return Err(Failure {
                    what: format!("it is not known how this ended: {}", answer.trim()),
                    hint: Some("look at `tier0 status` and `tier0 history`".to_owned()),
                    code: Exit::Unknown,
                }
                .into());
            }
        };
        eprintln!("operation {id} goes on; it is followed to its end (it needs nobody who waits)");
        let mut heard = std::time::Instant::now();
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            match self.get::<serde_json::Value>(&format!("/operations/{id}")).await {
                Ok(body) if body["result"] != RUNNING => return Ok(body),
                Ok(_) => heard = std::time::Instant::now(),
                Err(error) if heard.elapsed() > SILENT_WITHIN => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut deepest: &dyn std::error::Error = error;
        while let Some(cause) = deepest.source() {
            deepest = cause;
        }
        Failure {
            what: match self.bases.as_slice() {
                [only] => format!("the orchestrator at {only} does not answer: {deepest}"),
                all => format!("no orchestrator of {} answers: {deepest}", all.join(", ")),
            },
            hint: Some(
                "data servers go on without it; is it running? (`systemctl status \
                 tier0-orchestrator`, or `tier0 lab status`)"
                    .to_owned(),
            ),
            code: Exit::Unreachable,
        }
    }
}

async fn problem(answer: reqwest::Response) -> Failure {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    let code = match status {
        404 | 409 | 503 => Exit::Refused,
        504 => Exit::Unknown,
        400 | 401 | 403 | 422 => Exit::Usage,
        _ => Exit::Failed,
    };
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => Failure {
            hint: hint(&problem.code),
            what: format!("{} ({})", problem.detail, problem.code),
            code,
        },
        Err(_) => Failure { what: format!("HTTP {status}: {}", text.trim()), hint: None, code },
    }
}

/// The next command for a code.
fn hint(code: &str) -> Option<String> {
    Some(match code {
        "already-writer" => "`tier0 status` shows the writer".to_owned(),
        "operation-running" => "`tier0 status` shows it; wait for its end".to_owned(),
        "not-in-takeover-set" | "standby-not-running" | "redis-not-ready" | "replay-backlog" => {
            "`tier0 status` shows what the node is doing, `tier0 check` what stands in the way"
                .to_owned()
        }
        "target-agent-silent" => "start the agent of that region, or look at its log".to_owned(),
        "unknown-region" => "`tier0 status` names the regions".to_owned(),
        _ => return None,
    })
}
