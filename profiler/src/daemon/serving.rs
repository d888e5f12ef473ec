//! The thread of the servers, with an event loop of its own: however many clients there are, the core's is not theirs.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use super::{
    config::Config,
    http::Token,
    servers::{Servers, ServersError},
    state::State,
};

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] ServersError),
    /// The thread, or its event loop.
    #[error("cannot start the thread of the servers: {0}")]
    Thread(#[from] io::Error),
}

/// The thread; dropped, it ends, and its sockets are removed.
pub struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Listens, then serves.
    ///
    /// # Errors
    /// What is in use, or not allowed.
    pub fn start(config: &Config, token: Option<Token>, state: Arc<State>) -> Result<Self, ServingError> {
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = mpsc::channel();
        let config = config.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            runtime.block_on(async {
                let servers = match Servers::listen(&config, token, state).await {
                    Ok(servers) => servers,
                    Err(error) => {
                        _ = listening.send(Err(error));
                        return;
                    }
                };
                _ = listening.send(Ok(()));
                tokio::select! {
                    served = servers.serve() => {
                        if let Err(error) = served {
                            log::error!("HTTP: {error}");
                        }
                    }
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("servers".to_owned()).spawn(serve)?;
        let serving = Self { stop: Some(stop), thread: Some(thread) };
        listens.recv().map_err(|_| io::Error::other("it has panicked"))??;
        Ok(serving)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It can have ended by itself.
            _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of the servers has panicked");
        }
    }
}
