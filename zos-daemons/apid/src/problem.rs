//! How the API says no: every answer of 400 and above is a problem (RFC 9457).

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use zos_api::local::CallError;
use zos_types::Problem;

/// The media type of a problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A request that is not answered as asked.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Box<Problem>);

impl Refused {
    pub(crate) fn new(status: StatusCode, slug: &str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Refused");
        Self(Box::new(Problem::new(status.as_u16(), slug, title, detail)))
    }

    pub(crate) fn with_next_version(mut self, next_version: Option<u64>) -> Self {
        self.0.next_version = next_version;
        self
    }
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        let detail = error.to_string();
        match error {
            CallError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "not-found", detail),
            CallError::Invalid { errors, .. } => {
                let mut refused = Self::new(StatusCode::BAD_REQUEST, "invalid", detail);
                refused.0.errors = errors;
                refused
            }
            CallError::Conflict { next_version, .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", detail).with_next_version(next_version)
            }
            CallError::Full { errors, .. } => {
                let mut refused = Self::new(StatusCode::CONFLICT, "full", detail);
                refused.0.errors = errors;
                refused
            }
            CallError::Busy { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            }
            CallError::Denied { .. } | CallError::Failed { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default(); // strings and numbers only
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        match status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Signature realm=\"zos\"");
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

/// Turns what the framework refused by itself (no such route, method, encoding) into a problem.
pub(crate) async fn in_one_form(response: Response) -> Response {
    let status = response.status();
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|t| t == MEDIA_TYPE);
    if status.as_u16() < 400 || ours {
        return response;
    }
    let (slug, detail) = match status {
        StatusCode::NOT_FOUND => {
            ("not-found", "there is nothing here; GET /v1/openapi.json lists what there is".into())
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(ALLOW).and_then(|a| a.to_str().ok());
            (
                "method",
                format!("this method is none of those possible here: {}", allow.unwrap_or("none")),
            )
        }
        _ if status.is_server_error() => ("failed", "the node could not answer this".to_owned()),
        _ => ("invalid", "the request can't be read".to_owned()),
    };
    let (mut head, _) = response.into_parts();
    let (problem, body) = Refused::new(status, slug, detail).into_response().into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.extend(problem.headers);
    Response::from_parts(head, Body::new(body))
}
