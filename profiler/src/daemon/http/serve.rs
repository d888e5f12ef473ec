//! Connections: accepted, bounded, ended.
//!
//! One request a connection (`Connection: close`): a connection that waits for its next request would take the room of
//! another one. There is room for [`Limits::connections`]; one more is closed at once, so that whoever holds them all slows
//! down nobody but HTTP clients, and each of them only for [`Limits::head`] if it sends nothing, for [`Limits::stall`] if it
//! takes nothing, for [`Limits::whole`] whatever it does.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, Sleep, sleep, timeout},
};

use super::{App, Token, debug, router};
use crate::daemon::{config::Listen, socket::Bound, state::State};

/// Most bytes of a request's head; hyper's least is 8 KiB.
const MAX_HEAD: usize = 16 << 10;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// What a client can use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Time to send the head of the request.
    pub head: Duration,
    /// Time in which a client takes nothing of the answer.
    pub stall: Duration,
    /// Time of a connection.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            // The longest profile on demand, and as long to take it.
            whole: Duration::from_secs(debug::MAX_SECONDS * 2) + debug::MARGIN,
        }
    }
}

/// Where it is served.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(Bound),
}

impl Listener {
    /// Listens; `None`: nowhere.
    ///
    /// # Errors
    /// Those of bind(2).
    pub async fn listen(at: &Listen) -> io::Result<Option<Self>> {
        Ok(match at {
            Listen::Off => None,
            Listen::Tcp(address) => Some(Self::Tcp(TcpListener::bind(address).await?)),
            Listen::Unix(path) => Some(Self::Unix(Bound::listen(path)?)),
        })
    }

    fn is_loopback(&self) -> bool {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(_) => return false,
        };
        address.is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }
}

/// Serves for as long as it is polled.
///
/// # Errors
/// If other hosts can connect and there is no token.
pub async fn serve(
    listener: Listener,
    state: Arc<State>,
    token: Option<Token>,
    limits: Limits,
) -> io::Result<()> {
    let loopback = listener.is_loopback();
    if matches!(listener, Listener::Tcp(_)) && !loopback && token.is_none() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "HTTP for other hosts needs a token"));
    }
    let router = router(&App::new(state, token, loopback));
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(bound) => bound.listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        };
        let stream = match accepted {
            Ok(stream) => stream,
            // Out of files, mostly, or a connection that is gone again.
            Err(error) => {
                log::debug!("http: {error}");
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Without room, the connection is closed here.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            connection(stream, router, limits).await;
            drop(permit);
        });
    }
}

async fn connection(stream: Stream, router: Router, limits: Limits) {
    let stream = TokioIo::new(Impatient { stream, limit: limits.stall, deadline: None });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let served = builder.serve_connection(stream, TowerToHyperService::new(router));
    match timeout(limits.whole, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("http: {error}"),
        Err(_) => log::debug!("http: a connection took longer than {} s", limits.whole.as_secs()),
    }
}

/// A connection.
enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// A connection that fails if its other end takes nothing for some time.
struct Impatient {
    stream: Stream,
    limit: Duration,
    /// Since something waits to be written.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    /// The result of a write, or a failure if there has been none for too long.
    fn watched<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let limit = self.limit;
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.watched(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
        };
        self.watched(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
