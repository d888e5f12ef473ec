//! `/debug/pprof/profile`: a profile on demand, as Go programs serve one: `go tool pprof http://HOST/debug/pprof/profile`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderValue, Uri, header},
};
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use super::{
    App,
    answer::{Answer, Problem, content},
    api,
    params::Params,
};
use crate::{
    daemon::control::{Command, ProfileRequest},
    render::{RenderOptions, format_by_name},
};

/// Parameters.
pub const PARAMETERS: &[&str] = &["seconds", "pid", "hz"];

/// How long if nothing is said; as Go's.
const DEFAULT_SECONDS: u64 = 30;

/// Longest profile.
pub const MAX_SECONDS: u64 = 60;

/// Highest rate of samples per second and CPU.
const MAX_HZ: u64 = 10_000;

/// Time beyond the profile's own for attaching and naming.
pub const MARGIN: Duration = Duration::from_secs(20);

/// `/debug/pprof/profile`
pub async fn profile(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let params = Params::read(&uri, PARAMETERS)?;
    let request = ProfileRequest {
        seconds: params.number("seconds", 1..=MAX_SECONDS)?.unwrap_or(DEFAULT_SECONDS),
        pid: params.pid()?,
        frequency_hz: params.number("hz", 1..=MAX_HZ)?,
    };
    let busy = || Problem::unavailable("another profile is being recorded; there is one at a time");
    let permit = Arc::clone(&app.profiles).try_acquire_owned().map_err(|_| busy())?;
    let (reply, answer) = oneshot::channel();
    let command = Command::Profile(request, reply);
    app.state.commands.try_send(command).map_err(|_| Problem::unavailable("the daemon is busy"))?;
    // A task of its own: while the core still works on one there is no other, also if the client has gone.
    let answer = tokio::spawn(async move { (answer.await, permit) });
    let (answer, permit) = match timeout(Duration::from_secs(request.seconds) + MARGIN, answer).await {
        Ok(answered) => answered.map_err(|error| Problem::internal(error.to_string()))?,
        Err(_) => return Err(Problem::unavailable("the profile was not ready in time")),
    };
    let profile = match answer {
        Ok(Ok(profile)) => profile,
        Ok(Err(error)) => return Err(Problem::unavailable(error)),
        Err(_) => return Err(Problem::unavailable("the daemon is stopping")),
    };
    let format = format_by_name("pprof").ok_or_else(|| Problem::internal("there is no format pprof"))?;
    let bytes = spawn_blocking(move || {
        let _permit = permit;
        api::bounded(|out| (format.write)(&profile, &RenderOptions::default(), out))
    });
    let bytes = bytes.await.map_err(|error| Problem::internal(error.to_string()))??;
    let mut response = content("application/octet-stream", bytes);
    let name = HeaderValue::from_static("attachment; filename=\"profile.pb.gz\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}
