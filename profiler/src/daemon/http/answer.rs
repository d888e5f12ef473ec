//! Answers: bytes with their type, errors as `{"error":"..."}`.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::json;

/// JSON.
pub const JSON: &str = "application/json";

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP's code.
    pub status: StatusCode,
    /// In words.
    pub message: String,
}

impl Problem {
    /// The request is wrong.
    pub fn request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// It cannot be done now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into() }
    }

    /// It went wrong here.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }
}

/// What handlers give.
pub type Answer = Result<Response<Body>, Problem>;

/// An answer of that type.
pub fn content(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    with_status(StatusCode::OK, kind, body)
}

/// An answer with that code and type.
pub fn with_status(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Names of targets are in it: no browser is to guess that it is a page of HTML, or to keep it.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = with_status(self.status, JSON, json!({ "error": self.message }).to_string());
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"profiler\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
