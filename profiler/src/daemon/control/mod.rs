//! Control of the daemon by `profiler ctl`: the commands to the core, the lines on the socket, server and client.
//!
//! One line of JSON is a request, one line its answer, then the connection ends:
//!
//! ```text
//! {"version":1,"command":"flush"}
//! {"version":1,"ok":true,"result":{"window":4711}}
//! {"version":1,"ok":false,"error":"..."}
//! ```
//!
//! Who may: root, and the user that the daemon runs as (`SO_PEERCRED`); the socket's mode is 0600.

mod client;
mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::model::Profile;

pub use client::{ClientError, ask};
pub use server::serve;

/// Version of the lines.
pub const VERSION: u32 = 1;

/// Longest request, bytes.
const MAX_REQUEST: usize = 1024;

/// Longest answer, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Where the core's answer goes; an error is in words. Closed: nobody waits for it any more.
pub type Reply<T> = oneshot::Sender<Result<T, String>>;

/// What the core is told to do.
#[derive(Debug)]
pub enum Command {
    /// Go on recording.
    Start(Reply<()>),
    /// Pause recording; the daemon goes on.
    Stop(Reply<()>),
    /// End the window now; the answer is its number, when it is written.
    Flush(Reply<u64>),
    /// Record a profile on demand. The permit is given back when the recording is over: there is one at a time.
    Profile(ProfileRequest, OwnedSemaphorePermit, Reply<Profile>),
}

/// A profile on demand. There is never more than one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileRequest {
    /// How long; 1 to 60 s.
    pub seconds: u64,
    /// Of that process alone, its threads included.
    pub pid: Option<u32>,
    /// Samples per second and CPU; `None`: as the daemon samples.
    pub frequency_hz: Option<u64>,
}

/// What can be asked at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Go on recording.
    Start,
    /// Pause recording.
    Stop,
    /// End the window now.
    Flush,
    /// Counters of /metrics begin anew at 0.
    Reset,
    /// How it is.
    Status,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`]
    pub version: u32,
    /// What to do.
    pub command: Verb,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`]
    pub version: u32,
    /// It was done.
    pub ok: bool,
    /// What came of it: `{"window":N}` of flush, the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Result<Option<Value>, String>> for Answer {
    fn from(result: Result<Option<Value>, String>) -> Self {
        let (result, error) = match result {
            Ok(result) => (result, None),
            Err(error) => (None, Some(error)),
        };
        Self { version: VERSION, ok: error.is_none(), result, error }
    }
}
