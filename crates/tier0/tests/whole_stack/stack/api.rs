//! The orchestrator's API as a client sees it, and waiting for conditions.

use std::time::Duration;

use serde_json::Value;
use tier0_config::Secret;
use tier0_lab::state::LabState;
use tokio::time::Instant;

/// Which token a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The one that may operate.
    Operate,
    /// The one that may also accept loss.
    AcceptLoss,
    /// One that nobody gave out.
    Wrong,
    /// None.
    Absent,
}

/// What a POST carries beside its path.
#[derive(Debug, Clone)]
pub struct Ask {
    pub token: Token,
    pub key: Option<String>,
    pub body: String,
}

impl Default for Ask {
    fn default() -> Ask {
        Ask { token: Token::Operate, key: None, body: String::new() }
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub text: String,
    /// Null where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// Demand a refusal in the form of RFC 9457, with the specification's fields beside it.
    #[track_caller]
    pub fn refuses(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.kind, "application/problem+json", "{self:?}");
        assert_eq!(self.body["code"], code, "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert_eq!(self.body["success"], false, "{self:?}");
        assert_eq!(self.body["error"], self.body["detail"], "{self:?}");
        for field in ["type", "title", "detail"] {
            assert!(self.body[field].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
    }

    /// Demand success.
    #[track_caller]
    pub fn succeeds(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["success"], true, "{self:?}");
        assert_eq!(self.body["result"], "succeeded", "{self:?}");
    }

    /// The operation's id.
    pub fn operation(&self) -> &str {
        self.body["operation_id"].as_str().expect("an operation has an id")
    }
}

/// A client.
#[derive(Clone)]
pub struct Api {
    base: String,
    operate: Secret,
    accept_loss: Secret,
    client: reqwest::Client,
}

impl Api {
    pub fn new(state: &LabState) -> Api {
        Api {
            base: state.api.clone(),
            operate: Secret::from_file(&state.operate_token_file).unwrap(),
            accept_loss: Secret::from_file(&state.accept_loss_token_file).unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// The same, asking another orchestrator.
    pub fn asking(self, base: &str) -> Api {
        Api { base: base.to_owned(), ..self }
    }

    /// `GET`, without a token.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap()
    }

    /// `GET`, from an orchestrator that may be down.
    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        let request = self.client.get(format!("{}{path}", self.base));
        self.send(request.timeout(Duration::from_secs(5))).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, ask: Ask) -> Answer {
        self.try_post(path, ask).await.unwrap()
    }

    /// `POST` to an orchestrator that may end meanwhile.
    pub async fn try_post(&self, path: &str, ask: Ask) -> Result<Answer, String> {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(ask.body);
        let token = match ask.token {
            Token::Operate => Some(self.operate.expose()),
            Token::AcceptLoss => Some(self.accept_loss.expose()),
            Token::Wrong => Some("this-is-nobodys-token"),
            Token::Absent => None,
        };
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = ask.key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request.timeout(Duration::from_secs(60))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type");
        let kind = kind.map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, kind, text, body })
    }

    /// `POST /failover/{region}` with the operate token and nothing else.
    pub async fn failover(&self, region: &str) -> Answer {
        self.post(&format!("/failover/{region}"), Ask::default()).await
    }

    /// GET with a token, which reading needs from another network namespace.
    pub async fn read(&self, path: &str) -> Result<Answer, String> {
        let request = self.client.get(format!("{}{path}", self.base));
        let request = request.bearer_auth(self.operate.expose());
        self.send(request.timeout(Duration::from_secs(5))).await
    }

    /// `GET /status`, an error while nobody answers.
    pub async fn status(&self) -> Result<Value, String> {
        let answer = self.read("/status").await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.text) }
    }

    /// Wait until every datastore has its writer and its follower, PostgreSQL is protected, and
    /// nothing is under way.
    pub async fn protected(&self, limit: Duration) -> Result<Value, String> {
        until(limit, async || {
            let status = self.status().await?;
            match not_settled(&status) {
                None => Ok(status),
                Some(why) => Err(format!("{why}\n{status:#}")),
            }
        })
        .await
    }
}

/// What is missing until the stack is as it should be.
fn not_settled(status: &Value) -> Option<String> {
    if status["protection"] != "protected" {
        return Some(format!("protection is {}", status["protection"]));
    }
    if !status["operation"].is_null()
        || status["repairs"].as_array().is_none_or(|all| !all.is_empty())
    {
        return Some("something is under way".to_owned());
    }
    let writer = status["current_region"].as_str()?;
    for datastore in status["datastores"].as_array()? {
        for node in datastore["nodes"].as_array()? {
            let name = node["node"].as_str()?;
            let wanted = match (datastore["kind"].as_str()?, name.ends_with(writer)) {
                ("postgres", true) => "primary",
                ("postgres", false) => "standby",
                (_, true) => "master",
                (_, false) => "replica",
            };
            if node["role"] != wanted || node["state"] != "running" {
                return Some(format!("{name} is {} and {}", node["role"], node["state"]));
            }
        }
    }
    None
}

/// Try until it is so, for at most `limit`; the last reason why it is not.
pub async fn until<T>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= deadline => {
                return Err(format!("not within {} s: {why}", limit.as_secs_f64()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
