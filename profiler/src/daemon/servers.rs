//! What the daemon serves, put together: HTTP and control, for a [`State`].

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use super::{
    config::{Config, Listen},
    control,
    http::{self, Limits, Listener, Token},
    socket::Bound,
    state::State,
};

/// What cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {cause}")]
pub struct ServersError {
    /// Setting and address.
    at: String,
    /// Why.
    cause: io::Error,
}

/// The servers; nobody is answered before they are polled.
#[derive(Debug)]
pub struct Servers {
    control: Bound,
    http: Option<Listener>,
    token: Option<Token>,
    state: Arc<State>,
}

impl Servers {
    /// Listens at all that the configuration says, so that what cannot be is known at the start.
    ///
    /// # Errors
    /// What is in use, or not allowed.
    pub async fn listen(
        config: &Config,
        token: Option<Token>,
        state: Arc<State>,
    ) -> Result<Self, ServersError> {
        let socket = &config.control.socket;
        let control = Bound::listen(socket)
            .or_else(|error| made_directory(socket, error).and_then(|()| Bound::listen(socket)))
            .map_err(|cause| ServersError { at: format!("control.socket {}", socket.display()), cause })?;
        let listen = &config.http.listen;
        let http = match Listener::listen(listen).await {
            Err(error) if let Listen::Unix(path) = listen => match made_directory(path, error) {
                Ok(()) => Listener::listen(listen).await,
                Err(error) => Err(error),
            },
            result => result,
        };
        let http = http.map_err(|cause| ServersError { at: format!("http.listen {listen}"), cause })?;
        Ok(Self { control, http, token, state })
    }

    /// Serves for as long as it is polled.
    ///
    /// # Errors
    /// If HTTP can be reached by other hosts and there is no token.
    pub async fn serve(self) -> io::Result<()> {
        let control = control::serve(self.control, Arc::clone(&self.state));
        match self.http {
            None => {
                control.await;
                Ok(())
            }
            Some(listener) => {
                let http = http::serve(listener, self.state, self.token, Limits::default());
                tokio::select! {
                    () = control => Ok(()),
                    result = http => result,
                }
            }
        }
    }
}

/// Makes the directory of a socket, if that is what is missing: without systemd, nobody else does.
fn made_directory(socket: &Path, error: io::Error) -> io::Result<()> {
    match socket.parent() {
        Some(directory) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
            DirBuilder::new().mode(0o755).create(directory)
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::daemon::control::{Verb, ask};

    fn state() -> Arc<State> {
        Arc::new(State::new("/".into(), Duration::from_secs(10), 10).0)
    }

    #[tokio::test]
    async fn both_are_served_in_directories_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut config = Config::default();
        config.control.socket = path("a/control.sock");
        config.http.listen = Listen::Unix(path("b/http.sock"));
        let servers = Servers::listen(&config, None, state()).await.unwrap();
        let again = Servers::listen(&config, None, state()).await.unwrap_err().to_string();
        assert!(again.ends_with("a/control.sock: another daemon listens there"), "{again}");
        let served = tokio::spawn(servers.serve());
        let socket = config.control.socket.clone();
        let status = tokio::task::spawn_blocking(move || ask(&socket, Verb::Status)).await.unwrap().unwrap();
        assert_eq!(status.unwrap()["state"], "starting");
        assert!(path("b/http.sock").exists());
        served.abort();
        _ = served.await;
        assert!(!path("b/http.sock").exists() && !config.control.socket.exists(), "removed at the end");
    }

    #[tokio::test]
    async fn what_cannot_be_listened_at_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.control.socket = directory.path().join("x/y/control.sock");
        let error = Servers::listen(&config, None, state()).await.unwrap_err().to_string();
        assert!(error.starts_with("control.socket /") && error.contains("No such file"), "{error}");
    }
}
