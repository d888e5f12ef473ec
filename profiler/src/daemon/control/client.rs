//! The other side of the control socket: `profiler ctl`.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{Answer, MAX_ANSWER, Request, VERSION, Verb};

/// Longest wait for an answer: longer than the daemon gives itself.
const WAIT: Duration = Duration::from_secs(90);

/// Why there is no answer, or which one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there, or it may not be asked.
    #[error("{}: {cause}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The connection broke.
    #[error("the daemon's answer cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The daemon did not do it.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon at that socket; gives what came of it.
///
/// # Errors
/// If there is no daemon, or it did not do it.
pub fn ask(path: &Path, command: Verb) -> Result<Option<Value>, ClientError> {
    let connect = || {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(stream)
    };
    let mut stream = connect().map_err(|cause| ClientError::Connect { path: path.to_owned(), cause })?;
    let mut request = serde_json::to_vec(&Request { version: VERSION, command }).map_err(io::Error::from)?;
    request.push(b'\n');
    stream.write_all(&request)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER as u64)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let answer: Answer = serde_json::from_slice(&line).map_err(io::Error::from)?;
    match answer.ok {
        true => Ok(answer.result),
        false => Err(ClientError::Refused(answer.error.unwrap_or_else(|| "no reason was given".to_owned()))),
    }
}
