//! Metrics, health, the description of the interface.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
};
use tokio::task::spawn_blocking;

use super::{
    App, OPENAPI,
    answer::{Answer, JSON, Problem, content},
    params::Params,
};
use crate::export::Format;

const TEXT: &str = "text/plain; charset=utf-8";

/// `/metrics`
pub async fn metrics(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer {
    Params::read(&uri, &[])?;
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(&accept.join(","));
    let state = Arc::clone(&app.state);
    // The page of a large host takes some milliseconds to write.
    let page = spawn_blocking(move || state.registry.page(format));
    let page = page.await.map_err(|error| Problem::internal(error.to_string()))?;
    let mut response = content(format.content_type(), axum::body::Bytes::from_owner(page));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// `/healthz`: the process answers.
pub async fn healthz(uri: Uri) -> Answer {
    Params::read(&uri, &[])?;
    Ok(content(TEXT, "ok\n"))
}

/// `/readyz`: windows are written.
pub async fn readyz(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    Params::read(&uri, &[])?;
    match app.state.ready(Instant::now()) {
        Ok(()) => Ok(content(TEXT, "ok\n")),
        Err(why) => Err(Problem::unavailable(why)),
    }
}

/// `/api/v1/openapi.json`
pub async fn openapi(uri: Uri) -> Answer {
    Params::read(&uri, &[])?;
    Ok(content(JSON, OPENAPI))
}

/// Any other path.
pub async fn not_found() -> Problem {
    Problem {
        status: StatusCode::NOT_FOUND,
        message: "there is nothing here; /api/v1/openapi.json tells what there is".to_owned(),
    }
}

/// Any other method.
pub async fn method_not_allowed() -> Problem {
    Problem { status: StatusCode::METHOD_NOT_ALLOWED, message: "only GET is answered".to_owned() }
}
