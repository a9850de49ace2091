//! Whichever orchestrator is asked, the one that acts answers: the others pass requests on to it.
//!
//! A request is passed on once. Left out: what each answers for itself (`/health`, `/metrics`,
//! `/logs`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tier0_config::Secret;
use tier0_core::orchestrator::{Now, Orchestrator};
use tier0_core::words::Site;
use tier0_wire::tokens_match;

use super::access::bearer;
use super::problem::Refused;
use super::{BODY_MOST, Shared};
use crate::agents::{chain, client};

/// Says by which site a request was passed on, in the request and in its answer.
const PASSED_ON: &str = "x-tier0-passed-on-by";

/// Longer than the one that acts keeps a caller waiting.
const ANSWERED_WITHIN: Duration = Duration::from_secs(125);

/// The way to the other orchestrators.
pub struct Forward {
    others: BTreeMap<Site, SocketAddr>,
    token: Arc<Secret>,
    client: reqwest::Client,
}

impl Forward {
    /// To these.
    pub fn new(others: Vec<(Site, SocketAddr)>, token: Arc<Secret>) -> anyhow::Result<Forward> {
        Ok(Forward { others: others.into_iter().collect(), token, client: client()? })
    }

    /// Whether another orchestrator asks.
    pub fn is_of_peer(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|presented| tokens_match(presented, &self.token))
    }
}

/// The site that acts, if this one only watches and knows who does.
fn elsewhere(core: &Orchestrator, _: &Now) -> Option<Site> {
    core.acting_site().filter(|site| **site != core.settings().seats.here).cloned()
}

/// Pass a request on to the orchestrator that acts, or answer it here.
pub async fn forward(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if shared.forward.others.is_empty() || request.headers().contains_key(PASSED_ON) {
        return Ok(next.run(request).await);
    }
    let acting = shared.driver.look(elsewhere).await.flatten();
    let address = acting.as_ref().and_then(|site| shared.forward.others.get(site));
    match (acting.as_ref(), address) {
        (Some(site), Some(address)) => pass_on(&shared, site, *address, request).await,
        _ => Ok(next.run(request).await),
    }
}

async fn pass_on(
    shared: &Shared,
    site: &Site,
    address: SocketAddr,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_MOST).await.map_err(|_| Refused::body_too_long())?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut asked = shared
        .forward
        .client
        .request(parts.method.clone(), format!("http://{address}{path}"))
        .timeout(ANSWERED_WITHIN)
        .header(PASSED_ON, shared.site.as_str())
        .body(body);
    for name in ["content-type", "idempotency-key", "authorization"] {
        if let Some(value) = parts.headers.get(name) {
            asked = asked.header(name, value);
        }
    }
    if parts.method == Method::GET {
        // Whoever asks was let in here; over there it is this orchestrator that asks.
        asked = asked.bearer_auth(shared.forward.token.expose());
    }
    let answer = asked.send().await.map_err(|error| {
        let why = chain(&error);
        if error.is_connect() || parts.method == Method::GET {
            let detail = format!("the orchestrator at {site} acts, and cannot be asked: {why}");
            return Refused::new(StatusCode::SERVICE_UNAVAILABLE, "not-driving", detail);
        }
        let detail = format!(
            "this was passed on to the orchestrator at {site}, whose answer did not come ({why}): it \
             is not known whether it had an effect; look at GET /operations"
        );
        Refused::new(StatusCode::GATEWAY_TIMEOUT, "unknown", detail)
    })?;
    let mut response =
        Response::builder().status(answer.status()).header(PASSED_ON, shared.site.as_str());
    for name in [header::CONTENT_TYPE, header::WWW_AUTHENTICATE] {
        if let Some(value) = answer.headers().get(&name) {
            response = response.header(name, value);
        }
    }
    let bytes = answer.bytes().await.map_err(|error| {
        let detail =
            format!("the answer of the orchestrator at {site} broke off: {}", chain(&error));
        Refused::new(StatusCode::GATEWAY_TIMEOUT, "unknown", detail)
    })?;
    response.body(Body::from(bytes)).map_err(|error| {
        Refused::new(StatusCode::BAD_GATEWAY, "unknown", format!("build the answer: {error}"))
    })
}
