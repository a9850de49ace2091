//! The cluster: which of its members is asked, for how long, and which is asked next.
//!
//! One member is held for as long as it answers. Spreading requests over members was measured to
//! fail each n-th one while one member is down, and it would put a frozen member into the path of
//! every other write. Left out: going back to a nearer member by itself.

use std::fmt;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::member::{self, Failure};
use super::message::{Answer, AnswerText, Range, Txn};
use super::settings::{self, EtcdCredentials, EtcdSettings};
use crate::StoreError;

/// For one answer of one member. Below the time in which a cluster elects a leader, so that a
/// frozen member costs little; above what two round trips between far regions take.
const ATTEMPT: Duration = Duration::from_millis(400);

/// For the answer to a password: etcd makes checking one slow on purpose.
const AUTHENTICATION: Duration = Duration::from_millis(1_500);

/// For a whole call, all attempts together. A cluster elects a leader in less.
const CALL: Duration = Duration::from_secs(3);

/// For members who all refuse at once, before they are asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The most bytes of one request, as etcd has it unless it was told otherwise.
const REQUEST_MOST: usize = 1_536 * 1_024;

/// Whether somebody who does not hear the answer must ask what became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It reads, or it does no harm whenever it is carried out.
    Harmless,
    /// It writes.
    Write,
}

/// What is known of the writes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Each was answered.
    Known,
    /// At least one was not: it may have been carried out, or may yet be.
    Open,
}

/// One call of the store, with all requests that it takes.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) doing: &'static str,
    pub(super) outcome: Outcome,
    deadline: Instant,
    tried: Tried,
    authentications: u32,
}

impl Call {
    pub(super) fn begin(doing: &'static str) -> Call {
        Call::within(doing, CALL)
    }

    /// A call that may take less than others.
    pub(super) fn within(doing: &'static str, limit: Duration) -> Call {
        Call {
            doing,
            outcome: Outcome::Known,
            deadline: Instant::now() + limit,
            tried: Tried::default(),
            authentications: 0,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn failed(&mut self) -> StoreError {
        StoreError::Access { doing: self.doing, source: Box::new(std::mem::take(&mut self.tried)) }
    }
}

/// Which members were asked and what each said last, for the engineer on call.
#[derive(Debug, Default)]
struct Tried(Vec<(String, String, u32)>);

impl Tried {
    fn note(&mut self, address: &str, why: String) {
        match self.0.iter_mut().find(|(known, _, _)| known == address) {
            Some((_, last, times)) => {
                *last = why;
                *times += 1;
            }
            None => self.0.push((address.to_owned(), why, 1)),
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("etcd answered, but others changed what was compared, every time");
        }
        for (index, (address, why, times)) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "; " };
            write!(f, "{gap}{address}: {why}")?;
            if *times > 1 {
                write!(f, " (tried {times} times)")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Tried {}

/// What the cluster knows us by.
#[derive(Clone)]
enum Token {
    /// It was not asked for yet, or was refused.
    Missing,
    /// The cluster asks nobody, or we have no name to give.
    NotNeeded,
    Given(String),
}

/// The members, and the connection to one of them.
pub(super) struct Cluster {
    addresses: Vec<String>,
    held: usize,
    credentials: Option<EtcdCredentials>,
    token: Token,
    engine: Option<Engine>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("addresses", &self.addresses)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// What carries requests. A runtime of its own, on the thread that calls, because the store's calls
/// block.
struct Engine {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Engine {
    fn start(doing: &'static str) -> Result<Engine, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StoreError::Access { doing, source: Box::new(error) })?;
        let client = member::client()
            .map_err(|error| StoreError::Access { doing, source: Box::new(error) })?;
        Ok(Engine { runtime, client })
    }
}

impl Cluster {
    pub(super) fn new(settings: &EtcdSettings) -> Result<Cluster, StoreError> {
        let token = match settings.credentials {
            Some(_) => Token::Missing,
            None => Token::NotNeeded,
        };
        Ok(Cluster {
            addresses: settings::addresses(settings)?,
            held: 0,
            credentials: settings.credentials.clone(),
            token,
            engine: None,
        })
    }

    /// Carry out a transaction.
    pub(super) fn txn(
        &mut self,
        call: &mut Call,
        txn: &Txn,
        effect: Effect,
    ) -> Result<Answer, StoreError> {
        let answer: AnswerText = self.ask(call, txn, effect)?;
        answer.decode()
    }

    /// Read a range.
    pub(super) fn range(&mut self, call: &mut Call, range: &Range) -> Result<Answer, StoreError> {
        let mut txn = Txn::default();
        txn.read_range(range);
        self.txn(call, &txn, Effect::Harmless)
    }

    /// Ask one member after the other until one answers, or the call has taken its time.
    fn ask<T: DeserializeOwned>(
        &mut self,
        call: &mut Call,
        txn: &Txn,
        effect: Effect,
    ) -> Result<T, StoreError> {
        let doing = call.doing;
        let too_large = |why: &str| StoreError::Invalid {
            what: doing,
            problem: format!("etcd does not take {} bytes at once: {why}", txn.bytes()),
        };
        // Not left to etcd: taking so much in may last longer than an answer is waited for.
        if txn.bytes() > REQUEST_MOST {
            return Err(too_large(&format!("{REQUEST_MOST} are the most")));
        }
        let body = txn.json();
        let mut unanswered = 0;
        loop {
            if call.left().is_zero() {
                return Err(call.failed());
            }
            let failure = match self.attempt(call, &body, effect) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let address = self.addresses[self.held].clone();
            match failure {
                Failure::NotTaken(why) | Failure::NoAnswer(why) => {
                    call.tried.note(&address, why);
                    self.held = (self.held + 1) % self.addresses.len();
                    unanswered += 1;
                    if unanswered % self.addresses.len() == 0 {
                        self.pause(call)?;
                    }
                }
                Failure::Unauthenticated(why) if self.may_authenticate(call) => {
                    tracing::debug!(%address, %why, "etcd does not know us (any more)");
                    self.token = Token::Missing;
                }
                Failure::Unauthenticated(why) if self.credentials.is_none() => {
                    let why = format!("{why} (it asks for a user, and none is configured)");
                    call.tried.note(&address, why);
                    return Err(call.failed());
                }
                Failure::Unauthenticated(why) | Failure::Refused(why) => {
                    call.tried.note(&address, why);
                    return Err(call.failed());
                }
                Failure::TooLarge(why) => return Err(too_large(&why)),
                Failure::AuthenticationOff => {
                    tracing::warn!(%address, "etcd asks nobody for a password, ours is not used");
                    self.token = Token::NotNeeded;
                }
            }
        }
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.addresses.len()
    }

    /// Ask one member, whichever is held, for what only it can say or do.
    pub(super) fn of_member<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        member: usize,
        path: &str,
        body: &Value,
    ) -> Result<T, StoreError> {
        let token = match &self.token {
            Token::Given(token) => Some(token.clone()),
            Token::Missing | Token::NotNeeded => None,
        };
        let url = format!("{}/v3/{path}", self.addresses[member]);
        let engine = self.engine(call.doing)?;
        let asked = member::ask(&engine.client, &url, token.as_deref(), body, ATTEMPT);
        engine.run(asked).map_err(|failure| StoreError::Access {
            doing: call.doing,
            source: format!("{url}: {failure:?}").into(),
        })
    }

    /// Once a call; a token that is refused twice is not the token's fault.
    fn may_authenticate(&self, call: &mut Call) -> bool {
        call.authentications += 1;
        self.credentials.is_some() && call.authentications == 1
    }

    fn pause(&mut self, call: &Call) -> Result<(), StoreError> {
        let pause = PAUSE.min(call.left());
        let engine = self.engine(call.doing)?;
        // Made inside, or there is no clock to it.
        engine.run(async { tokio::time::sleep(pause).await });
        Ok(())
    }

    fn engine(&mut self, doing: &'static str) -> Result<&mut Engine, StoreError> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::start(doing)?,
        };
        Ok(self.engine.insert(engine))
    }

    /// Ask the member that is held, after it has told us our token.
    fn attempt<T: DeserializeOwned>(
        &mut self,
        call: &mut Call,
        body: &Value,
        effect: Effect,
    ) -> Result<T, Failure> {
        let refused = |error: StoreError| Failure::Refused(error.to_string());
        let address = self.addresses[self.held].clone();
        let (token, credentials) = (self.token.clone(), self.credentials.clone());
        let engine = self.engine(call.doing).map_err(refused)?;
        let token = match (token, credentials) {
            (Token::Given(token), _) => Some(token),
            (Token::NotNeeded, _) | (Token::Missing, None) => None,
            (Token::Missing, Some(credentials)) => {
                let timeout = AUTHENTICATION.min(call.left());
                let token = engine.authenticate(&address, &credentials, timeout)?;
                self.token = Token::Given(token.clone());
                Some(token)
            }
        };
        let engine = self.engine(call.doing).map_err(refused)?;
        let timeout = ATTEMPT.min(call.left());
        let url = format!("{address}/v3/kv/txn");
        let asked = member::ask(&engine.client, &url, token.as_deref(), body, timeout);
        let answer = engine.run(asked);
        if effect == Effect::Write && matches!(answer, Err(Failure::NoAnswer(_))) {
            call.outcome = Outcome::Open;
        }
        answer
    }
}

impl Engine {
    /// Nothing runs between calls, so the connection is given the time to become free for the next
    /// one; else that would open another.
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            let done = work.await;
            tokio::task::yield_now().await;
            done
        })
    }

    fn authenticate(
        &self,
        address: &str,
        credentials: &EtcdCredentials,
        timeout: Duration,
    ) -> Result<String, Failure> {
        #[derive(serde::Deserialize)]
        struct Authenticated {
            token: String,
        }
        let url = format!("{address}/v3/auth/authenticate");
        let body = json!({"name": credentials.user, "password": credentials.password});
        let asked = member::ask(&self.client, &url, None, &body, timeout);
        let answer: Authenticated = self.run(asked)?;
        Ok(answer.token)
    }
}
