//! HTTP: metrics, the history, profiles on demand, health.
//!
//! Every answer is made from [`State`](super::state::State) and the store; no path and no query names a file. What a client
//! can use up is bounded: connections, the size of its request, its time, reads of the store ([`serve`]). Each request passes
//! the token and the check of its host name first ([`guard`]).

mod answer;
mod api;
mod debug;
mod guard;
mod pages;
pub mod params;
pub mod serve;
#[cfg(test)]
mod tests;
pub mod token;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use tokio::sync::Semaphore;

pub use serve::{Limits, Listener, serve};
pub use token::{Token, TokenError};

use super::state::State;

/// What is served at a path, as docs and [`OPENAPI`] tell it.
#[derive(Debug)]
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// Parameters of its query; others are refused.
    pub parameters: &'static [&'static str],
}

/// The description of the interface, OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Everything that is served; only GET.
pub const ROUTES: &[Route] = &[
    Route { path: "/metrics", parameters: &[] },
    Route { path: "/healthz", parameters: &[] },
    Route { path: "/readyz", parameters: &[] },
    Route { path: "/api/v1/openapi.json", parameters: &[] },
    Route { path: "/api/v1/windows", parameters: api::WINDOWS },
    Route { path: "/api/v1/series", parameters: api::SERIES },
    Route { path: "/api/v1/profile", parameters: api::PROFILE },
    Route { path: "/api/v1/diff", parameters: api::DIFF },
    Route { path: "/debug/pprof/profile", parameters: debug::PARAMETERS },
];

/// What handlers share.
#[derive(Debug)]
pub struct App {
    state: Arc<State>,
    token: Option<Token>,
    /// Only names of this host are answered to (see [`guard`]).
    loopback: bool,
    /// Reads of the store at a time.
    reads: Arc<Semaphore>,
    /// Profiles on demand at a time.
    profiles: Arc<Semaphore>,
}

/// Reads of the store at a time: one CPU for who reads a long range, one for who reads a short one.
const MAX_READS: usize = 2;

impl App {
    /// `loopback`: it is served at a TCP port of this host alone.
    pub fn new(state: Arc<State>, token: Option<Token>, loopback: bool) -> Arc<Self> {
        let (reads, profiles) = (Arc::new(Semaphore::new(MAX_READS)), Arc::new(Semaphore::new(1)));
        Arc::new(Self { state, token, loopback, reads, profiles })
    }
}

/// The paths with their handlers.
fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(pages::metrics))
        .route("/healthz", get(pages::healthz))
        .route("/readyz", get(pages::readyz))
        .route("/api/v1/openapi.json", get(pages::openapi))
        .route("/api/v1/windows", get(api::windows))
        .route("/api/v1/series", get(api::series))
        .route("/api/v1/profile", get(api::profile))
        .route("/api/v1/diff", get(api::diff))
        .route("/debug/pprof/profile", get(debug::profile))
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard::guard))
        .with_state(Arc::clone(app))
}
