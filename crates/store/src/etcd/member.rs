//! One request to one member of the cluster, and what its answer, or the lack of one, says about
//! whether it was carried out.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// For a TCP connection. Shorter than an attempt, so that a request which was never sent can be told
/// from one that was not answered.
const CONNECT: Duration = Duration::from_millis(300);

/// Why a member did not do what was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not do it; another one may.
    NotTaken(String),
    /// Nobody knows whether it did, or yet will.
    NoAnswer(String),
    /// It does not know who we are; nothing was done.
    Unauthenticated(String),
    /// It did not do it, and no other would.
    Refused(String),
    /// It is more than etcd takes at once; nothing was done.
    TooLarge(String),
    /// It asks nobody who they are.
    AuthenticationOff,
}

pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(2)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Send a request and read the answer.
pub(super) async fn ask<T: DeserializeOwned>(
    client: &reqwest::Client,
    url: &str,
    token: Option<&str>,
    body: &Value,
    timeout: Duration,
) -> Result<T, Failure> {
    let mut request = client.post(url).timeout(timeout).json(body);
    if let Some(token) = token {
        request = request.header(reqwest::header::AUTHORIZATION, token);
    }
    let lost = |error: reqwest::Error| {
        if error.is_builder() {
            Failure::Refused(root(&error))
        } else if error.is_connect() {
            Failure::NotTaken(root(&error))
        } else if error.is_timeout() {
            Failure::NoAnswer(format!("no answer within {} ms", timeout.as_millis()))
        } else {
            Failure::NoAnswer(root(&error))
        }
    };
    let response = request.send().await.map_err(lost)?;
    let status = response.status();
    let body = response.bytes().await.map_err(lost)?;
    if status.is_success() {
        // It said yes in words that cannot be read: who knows what it did.
        return serde_json::from_slice(&body)
            .map_err(|error| Failure::NoAnswer(format!("an answer that is not etcd's: {error}")));
    }
    Err(match serde_json::from_slice::<Complaint>(&body) {
        Ok(complaint) => complaint.judge(),
        Err(_) if status == reqwest::StatusCode::NOT_FOUND => Failure::NotTaken(
            "no JSON gateway there (etcd has it unless --enable-grpc-gateway=false)".to_owned(),
        ),
        Err(_) => Failure::NoAnswer(format!("HTTP status {status}, and not in etcd's words")),
    })
}

/// The cause of causes: what is above it only says that a request was sent.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// An error as etcd sends it: 3.4 says both, later versions the message only.
#[derive(Debug, Deserialize)]
struct Complaint {
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    code: u32,
}

impl Complaint {
    /// The codes are those of gRPC, and too coarse: the words decide where they must. What is not
    /// known for sure to have been refused is taken for unanswered.
    fn judge(self) -> Failure {
        const INVALID_ARGUMENT: u32 = 3;
        const NOT_FOUND: u32 = 5;
        const PERMISSION_DENIED: u32 = 7;
        const RESOURCE_EXHAUSTED: u32 = 8;
        const FAILED_PRECONDITION: u32 = 9;
        const UNIMPLEMENTED: u32 = 12;
        const UNAUTHENTICATED: u32 = 16;
        let said = if self.message.is_empty() { self.error } else { self.message };
        let says = |words: &str| said.contains(words);
        match self.code {
            INVALID_ARGUMENT if says("request is too large") => Failure::TooLarge(said),
            INVALID_ARGUMENT if says("too many operations") => Failure::TooLarge(said),
            RESOURCE_EXHAUSTED if says("larger than max") => Failure::TooLarge(said),
            RESOURCE_EXHAUSTED if says("too many requests") => Failure::NotTaken(said),
            UNAUTHENTICATED => Failure::Unauthenticated(said),
            // Nobody was named at all, or the users were changed since the token was given.
            INVALID_ARGUMENT if says("user name is empty") => Failure::Unauthenticated(said),
            INVALID_ARGUMENT if says("auth store is old") => Failure::Unauthenticated(said),
            FAILED_PRECONDITION if says("authentication is not enabled") => {
                Failure::AuthenticationOff
            }
            INVALID_ARGUMENT | NOT_FOUND | PERMISSION_DENIED | RESOURCE_EXHAUSTED
            | FAILED_PRECONDITION | UNIMPLEMENTED => Failure::Refused(said),
            _ => Failure::NoAnswer(said),
        }
    }
}
