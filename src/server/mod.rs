//! Listens, serves, and drains.

mod descriptors;
mod preface;
mod reload;
mod signals;
mod tls;

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    serve::Listener,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) use descriptors::allow_all;
use preface::Preface;
pub(crate) use reload::Watched;
pub(crate) use signals::{Signals, Stop, exit_now};
pub use tls::{Tls, TlsError, TlsFiles};

/// How long connections have, once their requests were given up, to tell their clients so.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// How long the server waits for its clients.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long the head of a request may take to arrive, counted from when the connection opened or its last answer
    /// was sent. A connection that stays silent for longer is closed.
    pub receive: Duration,
    /// How long requests in flight may take once the server was told to stop.
    pub drain: Duration,
}

/// A server before it serves.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub listener: TcpListener,
    /// What it answers. Requests carry the address of who sent them, as axum's [`ConnectInfo`].
    pub routes: Router,
    /// Certificates, where it speaks HTTPS.
    pub tls: Option<Arc<Tls>>,
    /// How long it waits for its clients.
    pub patience: Patience,
}

impl Server {
    /// Serves until `stop` is ready, then takes no more connections and finishes the requests in flight. What isn't
    /// finished in time is given up: `give_up` makes the requests fail, and connections end soon after.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn run(self, stop: impl Future<Output = ()> + Send, give_up: impl FnOnce()) -> io::Result<Drained> {
        let Self { mut listener, routes, tls, patience } = self;
        let server = builder(patience.receive);
        let connections = GracefulShutdown::new();
        let stopping = CancellationToken::new();
        let mut stop = pin!(stop);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = Listener::accept(&mut listener) => accepted,
                () = &mut stop => break,
            };
            // Answers are small: waiting to fill a packet only costs time.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps its delay");
            }
            let connection = Connection {
                server: server.clone(),
                routes: routes.clone(),
                peer,
                watcher: connections.watcher(),
                stopping: stopping.clone(),
                receive: patience.receive,
            };
            let tls = tls.as_ref().map(|tls| tls.acceptor());
            tokio::spawn(async move {
                let served: Result<(), Broken> = match tls {
                    Some(acceptor) => connection.serve_encrypted(stream, acceptor).await,
                    None => connection.serve(stream).await,
                };
                if let Err(error) = served {
                    tracing::debug!(error, "a connection broke off");
                }
            });
        }
        drop(listener);
        stopping.cancel();
        let mut ended = pin!(connections.shutdown());
        if timeout(patience.drain, &mut ended).await.is_ok() {
            return Ok(Drained::Whole);
        }
        tracing::warn!(seconds = patience.drain.as_secs(), "requests in flight were given up");
        give_up();
        // Who doesn't even read the farewell is left behind.
        let _ = timeout(FAREWELL, ended).await;
        Ok(Drained::Overdue)
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request was answered.
    Whole,
    /// Some requests took too long and were given up.
    Overdue,
}

/// Why a connection ended before its time.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// One connection, and what serves it.
struct Connection {
    server: auto::Builder<TokioExecutor>,
    routes: Router,
    peer: SocketAddr,
    watcher: Watcher,
    /// Cancelled when the server takes no more connections.
    stopping: CancellationToken,
    receive: Duration,
}

impl Connection {
    /// Serves it once both sides have agreed on keys, which may take no longer than the head of a request.
    async fn serve_encrypted(self, stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor) -> Result<(), Broken> {
        let stream = tokio::select! {
            accepted = timeout(self.receive, acceptor.accept(stream)) => accepted??,
            // It has asked for nothing yet.
            () = self.stopping.cancelled() => return Ok(()),
        };
        self.serve(stream).await
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) -> Result<(), Broken> {
        let Self { server, routes, peer, watcher, receive, stopping: _ } = self;
        let routes = routes.map_request(move |mut request: Request<_>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let stream = TokioIo::new(Preface::new(stream, receive));
        let connection = server.serve_connection(stream, TowerToHyperService::new(routes)).into_owned();
        watcher.watch(connection).await
    }
}

/// HTTP/1.1 and HTTP/2, each with a bound on how long a client may say nothing.
fn builder(receive: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(receive);
    // Connections of HTTP/2 carry many requests and live long, so the client only has to answer a ping.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(receive).keep_alive_timeout(receive);
    builder
}
