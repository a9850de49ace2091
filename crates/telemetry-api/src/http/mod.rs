//! The HTTP side: what a request must look like, and which status each outcome has.
//!
//! | outcome | status |
//! |---|---|
//! | stored | 201 |
//! | not a batch / a field is wrong / too large | 400 / 422 / 413 |
//! | not stored, try again | 503, `"outcome": "not-stored"` |
//! | nobody knows, try again to settle it | 503, `"outcome": "unknown"` |
//!
//! A page of readings says where the next one is, as long as there may be one.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::backend::{Backend, Latest, Page, Role, Written};
use crate::reading::{Batch, BatchError, DeviceId};
use crate::selection::{Of, Selection, SelectionError};

#[cfg(test)]
mod tests;

/// The largest body, in bytes.
const LARGEST_BODY: usize = 1024 * 1024;

/// After how many seconds a client should try again. A move takes less.
const RETRY_AFTER: &str = "1";

/// All routes of the service.
pub(crate) fn router<B: Backend>(backend: Arc<B>) -> Router {
    Router::new()
        .route("/telemetry", post(take_telemetry::<B>))
        .route("/devices/{id}/latest", get(latest::<B>))
        .route("/devices/{id}/readings", get(of_device::<B>))
        .route("/sites/{id}/readings", get(of_site::<B>))
        .route("/health", get(health::<B>))
        .route("/ready", get(ready::<B>))
        .route("/metrics", get(metrics::<B>))
        .route("/openapi.json", get(openapi))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(backend)
}

async fn take_telemetry<B: Backend>(
    State(backend): State<Arc<B>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejected(rejection.status(), None, &rejection.body_text()),
    };
    let batch = match Batch::parse(&body) {
        Ok(batch) => Arc::new(batch),
        Err(BatchError::Malformed { problem }) => {
            return rejected(StatusCode::BAD_REQUEST, None, &problem);
        }
        Err(BatchError::Field { field, problem }) => {
            return rejected(StatusCode::UNPROCESSABLE_ENTITY, Some(&field), problem);
        }
    };
    let start = Instant::now();
    let written = backend.write(Arc::clone(&batch)).await;
    backend.metrics().batch(&written, start.elapsed());
    match written {
        Written::Stored { new, duplicates } => {
            let count = batch.readings().len();
            let body = json!({
                "outcome": "stored", "count": count, "new": new, "duplicates": duplicates,
            });
            (StatusCode::CREATED, Json(body)).into_response()
        }
        Written::NotStored { why } => unavailable("not-stored", &why),
        Written::Unknown { why } => unavailable("unknown", &why),
        Written::Rejected { why } => rejected(StatusCode::UNPROCESSABLE_ENTITY, None, &why),
    }
}

async fn latest<B: Backend>(State(backend): State<Arc<B>>, Path(id): Path<String>) -> Response {
    let device = match DeviceId::parse(&id) {
        Ok(device) => device,
        Err(problem) => {
            return rejected(StatusCode::UNPROCESSABLE_ENTITY, Some("device_id"), problem);
        }
    };
    match backend.latest(&device).await {
        Latest::Found { reading, source } => {
            let age = reading.timestamp_utc.duration_until(Timestamp::now()).as_secs_f64();
            let body = json!({"source": source, "age_seconds": age, "reading": reading});
            Json(body).into_response()
        }
        Latest::Absent => {
            let body = json!({"problem": format!("no reading of device {}", device.as_str())});
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
        Latest::Unavailable { why } => unavailable("unavailable", &why),
    }
}

async fn of_device<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    select(&*backend, Of::device(&id), query).await
}

async fn of_site<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    select(&*backend, Of::site(&id), query).await
}

async fn select<B: Backend>(
    backend: &B,
    of: Result<Of, SelectionError>,
    query: Option<String>,
) -> Response {
    let selection = of.and_then(|of| Selection::parse(of, query.as_deref().unwrap_or_default()));
    let selection = match selection {
        Ok(selection) => selection,
        Err(SelectionError { field, problem }) => {
            return rejected(StatusCode::UNPROCESSABLE_ENTITY, Some(&field), &problem);
        }
    };
    match backend.select(&selection).await {
        Page::Found { readings, source } => {
            let next = selection.next(&readings);
            Json(json!({"source": source, "readings": readings, "next": next})).into_response()
        }
        Page::Unavailable { why } => unavailable("unavailable", &why),
    }
}

/// Whether requests should be sent here: some node of PostgreSQL answers.
async fn ready<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    let health = backend.health().await;
    let of = |role| health.postgres.iter().any(|node| node.role == role);
    let (writes, reads) = (of(Role::Writer), of(Role::Writer) || of(Role::Replica));
    let body = Json(json!({"ready": reads, "writes": writes, "reads": reads}));
    match reads {
        true => body.into_response(),
        false => {
            let retry = [(header::RETRY_AFTER, RETRY_AFTER)];
            (StatusCode::SERVICE_UNAVAILABLE, retry, body).into_response()
        }
    }
}

async fn health<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    Json(backend.health().await).into_response()
}

async fn metrics<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], backend.metrics().text()).into_response()
}

/// Written by hand, since the handlers do not know which backend they have; a test compares its paths
/// with the routes.
const OPENAPI: &str = include_str!("openapi.json");

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

fn rejected(status: StatusCode, field: Option<&str>, problem: &str) -> Response {
    let mut body = json!({"outcome": "rejected", "problem": problem});
    if let Some(field) = field {
        body["field"] = Value::from(field);
    }
    (status, Json(body)).into_response()
}

fn unavailable(outcome: &str, why: &str) -> Response {
    let body = json!({"outcome": outcome, "problem": why});
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], Json(body))
        .into_response()
}
