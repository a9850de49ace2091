//! Errors as RFC 9457 describes them, with the specification's `success: false` and `error`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tier0_core::order::Refusal;
use tier0_core::words::OperationId;
use tier0_wire::Problem;

/// An answer that says no.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    code: String,
    detail: String,
    operation_id: Option<String>,
}

impl Refused {
    /// With a status.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Refused { status, code: code.to_owned(), detail: detail.into(), operation_id: None }
    }

    /// With the operation that it is about.
    pub fn of_operation(self, id: &OperationId) -> Self {
        Refused { operation_id: Some(id.to_string()), ..self }
    }

    /// 401.
    pub fn unauthorized(detail: &str) -> Self {
        Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403.
    pub fn forbidden(detail: &str) -> Self {
        Refused::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Refused::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 413.
    pub fn body_too_long() -> Self {
        let detail = "the body is longer than 64 KiB";
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-long", detail)
    }

    /// 503.
    pub fn not_ready() -> Self {
        let detail = "the authority record has not been read yet";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "no-record", detail)
    }

    /// What the core refused: 404 for what does not exist, else 409.
    pub fn by(refusal: &Refusal, operation_id: &str) -> Self {
        let status = match refusal.code.as_str() {
            "unknown-region" | "unknown-node" | "unknown-datastore" => StatusCode::NOT_FOUND,
            "no-record" | "not-driving" | "frozen" | "store-unavailable" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::CONFLICT,
        };
        Refused {
            status,
            code: refusal.code.clone(),
            detail: refusal.sentence.clone(),
            operation_id: Some(operation_id.to_owned()),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Problem {
            kind: format!("https://tier0.invalid/codes/{}", self.code),
            title: self.code.replace('-', " "),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            success: false,
            error: self.detail,
            operation_id: self.operation_id,
        };
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110: whoever is refused for want of a token is told which kind is wanted.
            let wanted = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, wanted);
        }
        response
    }
}

/// For paths that are not there.
pub async fn no_such_page() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "no-such-page", "there is no such page; see /openapi.json")
}

/// For methods that a path does not know.
pub async fn no_such_method() -> Refused {
    let detail = "this path does not know that method; see /openapi.json";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_token_is_asked_for() {
        let asked = |refused: Refused| {
            let response = refused.into_response();
            response.headers().get(header::WWW_AUTHENTICATE).cloned()
        };
        assert_eq!(asked(Refused::unauthorized("x")).unwrap(), "Bearer");
        assert_eq!(asked(Refused::forbidden("x")), None);
    }
}
