//! The HTTP side: what a request must look like, and which status each outcome has.
//!
//! | outcome | status |
//! |---|---|
//! | stored | 201 |
//! | not a batch / a field is wrong / too large | 400 / 422 / 413 |
//! | not stored, try again | 503, `"outcome": "not-stored"` |
//! | nobody knows, try again to settle it | 503, `"outcome": "unknown"` |

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::backend::{Backend, Latest, Written};
use crate::reading::{Batch, BatchError, DeviceId};

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
        .route("/health", get(health::<B>))
        .route("/metrics", get(metrics::<B>))
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
            Json(json!({"source": source, "reading": reading})).into_response()
        }
        Latest::Absent => {
            let body = json!({"problem": format!("no reading of device {}", device.as_str())});
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
        Latest::Unavailable { why } => unavailable("unavailable", &why),
    }
}

async fn health<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    Json(backend.health().await).into_response()
}

async fn metrics<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], backend.metrics().text()).into_response()
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
