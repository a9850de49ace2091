//! What changes something.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tier0_core::orchestrator::{Asked, Consent, Now, Orchestrator, Request};
use tier0_core::order::Refusal;
use tier0_core::words::{DatastoreName, NodeId, OperationId, Region};
use tier0_failpoint::reached;
use tier0_wire::{AutomaticBody, OperationBody, Problem, RequestBody};

use super::Shared;
use super::access::Right;
use super::problem::Refused;
use crate::driver::{fresh_id, wall};
use crate::readiness::wait_until_caught_up;
use crate::report::Answer;

/// How long a caller is kept waiting before it is told that the end is not known yet.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// Move the writer to a region.
///
/// The answer comes when the new side has accepted a real write in every datastore, or when it is
/// clear that it will not.
#[utoipa::path(
    post, path = "/failover/{region}", tag = "operate",
    params(
        ("region" = String, Path, description = "Where the writer should be"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key is the same operation")
    ),
    request_body(content = RequestBody, description = "May be absent"),
    responses(
        (status = 200, description = "The writer moved and accepted writes", body = OperationBody),
        (status = 400, description = "The body is not what is expected", body = Problem),
        (status = 401, description = "No token, or a wrong one", body = Problem),
        (status = 403, description = "The token does not give this right", body = Problem),
        (status = 404, description = "There is no such region", body = Problem),
        (status = 409, description = "Refused before any effect", body = Problem),
        (status = 413, description = "The body is too long", body = Problem),
        (status = 500, description = "It did not succeed; the body says what state things are in", body = OperationBody),
        (status = 503, description = "The record is not known, or nothing may be done", body = Problem),
        (status = 504, description = "It is not known how it ended", body = Problem)
    ),
    security(("token" = []))
)]
pub async fn failover(
    State(shared): State<Arc<Shared>>,
    Path(region): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let request = read_body(body)?;
    let consent = consent(&request)?;
    let needed = match consent {
        Consent::None => Right::Operate,
        Consent::AcceptLoss | Consent::AcceptLossOldSideIsDown => Right::AcceptLoss,
    };
    shared.access.demand(&headers, needed)?;
    let target: Region = region.parse().map_err(|error| {
        Refused::new(StatusCode::NOT_FOUND, "unknown-region", format!("{error}"))
    })?;
    run(shared, headers, request, Asked::Move { target, consent }).await
}

/// Make a node's data directory anew from the writer's node; the old one is kept.
#[utoipa::path(
    post, path = "/rebuild/{node}", tag = "operate",
    params(("node" = String, Path, description = "datastore.region")),
    request_body(content = RequestBody, description = "May be absent"),
    responses(
        (status = 200, description = "The node streams from the writer again", body = OperationBody),
        (status = 400, description = "The body is not what is expected", body = Problem),
        (status = 401, description = "No token, or a wrong one", body = Problem),
        (status = 404, description = "There is no such node", body = Problem),
        (status = 409, description = "Refused before any effect", body = Problem),
        (status = 413, description = "The body is too long", body = Problem),
        (status = 500, description = "It did not succeed", body = OperationBody),
        (status = 503, description = "The record is not known", body = Problem),
        (status = 504, description = "It is still running, or it is not known how it ended", body = Problem)
    ),
    security(("token" = []))
)]
pub async fn rebuild(
    State(shared): State<Arc<Shared>>,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    shared.access.demand(&headers, Right::Operate)?;
    let request = read_body(body)?;
    let node: NodeId = node
        .parse()
        .map_err(|error| Refused::new(StatusCode::NOT_FOUND, "unknown-node", format!("{error}")))?;
    run(shared, headers, request, Asked::Rebuild { node }).await
}

/// Record a single copy, and let commits go on without the lost standby.
#[utoipa::path(
    post, path = "/expose/{datastore}", tag = "operate",
    params(("datastore" = String, Path, description = "Which datastore")),
    request_body = RequestBody,
    responses(
        (status = 200, description = "Commits wait for nobody any more", body = OperationBody),
        (status = 400, description = "A reason is needed", body = Problem),
        (status = 401, description = "No token, or a wrong one", body = Problem),
        (status = 404, description = "There is no such datastore", body = Problem),
        (status = 409, description = "Refused before any effect", body = Problem),
        (status = 413, description = "The body is too long", body = Problem),
        (status = 500, description = "It did not succeed", body = OperationBody),
        (status = 503, description = "The record is not known", body = Problem),
        (status = 504, description = "It is not known how it ended", body = Problem)
    ),
    security(("token" = []))
)]
pub async fn expose(
    State(shared): State<Arc<Shared>>,
    Path(datastore): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    shared.access.demand(&headers, Right::Operate)?;
    let request = read_body(body)?;
    if request.reason.trim().is_empty() {
        return Err(Refused::bad_request("to expose a datastore a reason is needed"));
    }
    let datastore: DatastoreName = datastore.parse().map_err(|error| {
        Refused::new(StatusCode::NOT_FOUND, "unknown-datastore", format!("{error}"))
    })?;
    run(shared, headers, request, Asked::Expose { datastore }).await
}

/// Say whether the writer may be moved without being asked.
#[utoipa::path(
    post, path = "/automatic", tag = "operate",
    request_body = AutomaticBody,
    responses(
        (status = 200, description = "The record says so now", body = OperationBody),
        (status = 400, description = "The body is not what is expected, or lacks a reason", body = Problem),
        (status = 401, description = "No token, or a wrong one", body = Problem),
        (status = 409, description = "An operation owns the stack", body = Problem),
        (status = 413, description = "The body is too long", body = Problem),
        (status = 500, description = "It did not succeed", body = OperationBody),
        (status = 503, description = "The record is not known", body = Problem),
        (status = 504, description = "It is not known how it ended", body = Problem)
    ),
    security(("token" = []))
)]
pub async fn automatic(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    shared.access.demand(&headers, Right::Operate)?;
    let body = read_bytes(body)?;
    let asked: AutomaticBody = serde_json::from_slice(&body)
        .map_err(|error| Refused::bad_request(format!("the body cannot be read: {error}")))?;
    check_texts(&asked.reason, asked.requested_by.as_ref())?;
    if asked.reason.trim().is_empty() {
        return Err(Refused::bad_request("a reason is needed; it is shown until this is changed"));
    }
    let lasting = match asked.for_seconds {
        Some(seconds) if !(1..=LASTING_MOST).contains(&seconds) => {
            return Err(Refused::bad_request("for_seconds may be 1 to 2592000, which is 30 days"));
        }
        seconds => seconds.map(Duration::from_secs),
    };
    let request = RequestBody {
        reason: asked.reason,
        requested_by: asked.requested_by,
        ..RequestBody::default()
    };
    run(shared, headers, request, Asked::Arm { mode: asked.mode, lasting }).await
}

/// The longest time for which a mode may be set, in seconds.
const LASTING_MOST: u64 = 30 * 86_400;

fn read_bytes(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refused> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refused::body_too_long(),
        _ => Refused::bad_request(format!("the body cannot be read: {error}")),
    })?;
    // Serde would also take a list, field by field, and an empty one as a body that asks for nothing.
    let blank = body.iter().all(u8::is_ascii_whitespace);
    if !blank && !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refused::bad_request("the body must be a JSON object"));
    }
    Ok(body)
}

fn read_body(body: Result<Bytes, BytesRejection>) -> Result<RequestBody, Refused> {
    let body = read_bytes(body)?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(RequestBody::default());
    }
    let request: RequestBody = serde_json::from_slice(&body)
        .map_err(|error| Refused::bad_request(format!("the body cannot be read: {error}")))?;
    check_texts(&request.reason, request.requested_by.as_ref())?;
    if request.wait_seconds.is_some_and(|seconds| seconds > WAIT_MOST) {
        return Err(Refused::bad_request(format!("wait_seconds may be at most {WAIT_MOST}")));
    }
    Ok(request)
}

fn check_texts(reason: &String, requested_by: Option<&String>) -> Result<(), Refused> {
    for (field, text) in [("reason", Some(reason)), ("requested_by", requested_by)] {
        let text = text.map(String::as_str).unwrap_or_default();
        if text.chars().count() > 500 || text.chars().any(char::is_control) {
            return Err(Refused::bad_request(format!(
                "{field} may have 500 characters, and no control characters"
            )));
        }
    }
    Ok(())
}

/// Longest wait for a target to catch up, in seconds: the caller is answered within
/// [`ANSWER_WITHIN`].
const WAIT_MOST: u32 = 100;

fn consent(request: &RequestBody) -> Result<Consent, Refused> {
    match (request.accept_loss, request.old_side_is_down) {
        (false, false) => Ok(Consent::None),
        (false, true) => Err(Refused::bad_request(
            "old_side_is_down says something only together with accept_loss",
        )),
        (true, _) if request.reason.trim().is_empty() => {
            Err(Refused::bad_request("to accept loss a reason is needed; it goes into the history"))
        }
        (true, false) => Ok(Consent::AcceptLoss),
        (true, true) => Ok(Consent::AcceptLossOldSideIsDown),
    }
}

async fn run(
    shared: Arc<Shared>,
    headers: HeaderMap,
    body: RequestBody,
    what: Asked,
) -> Result<Response, Refused> {
    let fresh = fresh_id();
    let earlier = same_key(&shared, &headers, &what, &fresh).await?;
    reached("orchestrator.noted", "key").await;
    let id = earlier.clone().unwrap_or(fresh);
    // An orchestrator may have ended between noting a key and beginning what it was noted for: then
    // nothing has begun, and it begins now, under the id that the key has.
    let kept = earlier.is_some() && is_kept(&shared, &id).await?;
    if kept || !shared.begun.first(&id) {
        return known(&shared, id).await;
    }
    let wait = body.wait_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let request = Request {
        id: id.clone(),
        what,
        by: body.requested_by.filter(|by| !by.is_empty()).unwrap_or_else(|| "api".to_owned()),
        reason: body.reason,
    };
    until_driving(&shared).await;
    // The operation goes on whether or not the caller stays to hear of it.
    let asking = tokio::spawn({
        let driver = shared.driver.clone();
        async move {
            if let (Asked::Move { target, .. }, Some(most)) = (&request.what, wait) {
                wait_until_caught_up(&driver, target, most).await;
            }
            driver.ask(request).await
        }
    });
    match tokio::time::timeout(ANSWER_WITHIN, asking).await {
        Ok(Ok(Answer::Operation(body))) => Ok(operation(*body)),
        Ok(Ok(Answer::GoesOnElsewhere { id })) => Err(unknown(&id)),
        Ok(Ok(Answer::Refused { id, refusal })) => Err(Refused::by(&refusal, id.as_str())),
        Ok(Err(_)) | Err(_) => Err(unknown(&id)),
    }
}

fn unknown(id: &OperationId) -> Refused {
    let detail = format!("it is not known yet how operation {id} ends: ask GET /operations/{id}");
    Refused::new(StatusCode::GATEWAY_TIMEOUT, "unknown", detail).of_operation(id)
}

fn operation(body: OperationBody) -> Response {
    let status = match body.result.as_str() {
        "succeeded" => StatusCode::OK,
        "refused" => StatusCode::CONFLICT,
        "unknown" | "running" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(body)).into_response()
}

/// The operation that an earlier request with the same key began. The key covers what is asked,
/// so that one key cannot answer two different questions.
async fn same_key(
    shared: &Shared,
    headers: &HeaderMap,
    what: &Asked,
    id: &OperationId,
) -> Result<Option<OperationId>, Refused> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key =
        key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= 200).ok_or_else(|| {
            Refused::bad_request("Idempotency-Key must be 1 to 200 visible ASCII characters")
        })?;
    // Nothing is begun, nor noted, without the record: the key is still to be spent then.
    if shared.driver.look(|core, _| core.record().is_some()).await != Some(true) {
        return Err(Refused::not_ready());
    }
    let key = format!("{key} {what:?}");
    shared.store.remember_key(key, id.clone(), wall()).await.map_err(|error| {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", error.to_string())
    })
}

/// An orchestrator that was just started acts as soon as an agent has said what it has heard. What is
/// asked of it before that is not refused for it.
async fn until_driving(shared: &Shared) {
    let began = std::time::Instant::now();
    while began.elapsed() < DRIVES_WITHIN {
        let settled = |core: &Orchestrator, _: &Now| core.is_driving() || core.frozen().is_some();
        if shared.driver.look(settled).await != Some(false) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long that is waited for.
const DRIVES_WITHIN: Duration = Duration::from_secs(2);

/// Whether the record, the history or the loop knows this operation.
async fn is_kept(shared: &Shared, id: &OperationId) -> Result<bool, Refused> {
    let asked = id.clone();
    let knows = shared.driver.look(move |core, _| {
        let of_record = core.record().is_some_and(|record| {
            let claimed = record.claim.as_ref().map(|claim| &claim.operation);
            let finished = record.finished.as_ref().map(|last| &last.operation);
            claimed == Some(&asked) || finished == Some(&asked)
        });
        of_record || core.activities().any(|activity| activity.id == asked)
    });
    if knows.await.ok_or_else(Refused::not_ready)? {
        return Ok(true);
    }
    let found = shared.store.operation(id.clone()).await.map_err(|error| {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", error.to_string())
    })?;
    Ok(found.is_some())
}

/// What this process has begun at somebody's request. It is kept until the process ends: an id
/// comes from a request with the right to operate, and takes a hundred bytes.
#[derive(Default)]
pub struct Begun(Mutex<BTreeSet<OperationId>>);

impl Begun {
    /// Whether nobody has begun this before; from now on somebody has.
    fn first(&self, id: &OperationId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }
}

/// Answer for an operation that an earlier request began: wait for its end if it still runs.
async fn known(shared: &Shared, id: OperationId) -> Result<Response, Refused> {
    let began = std::time::Instant::now();
    while began.elapsed() < ANSWER_WITHIN {
        if let Ok(Some((summary, _))) = shared.store.operation(id.clone()).await
            && summary.finished.is_some()
            && let Ok(body) = serde_json::from_value::<OperationBody>(summary.report)
        {
            if body.result == "refused"
                && let (Some(code), Some(error)) = (&body.code, &body.error)
            {
                return Err(Refused::by(&Refusal::new(code, error.clone()), id.as_str()));
            }
            return Ok(operation(body));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(unknown(&id))
}
