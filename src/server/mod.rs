//! Listens, serves, and drains.

mod descriptors;
mod preface;

use std::{future::Future, io, pin::pin, time::Duration};

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;

pub(crate) use descriptors::allow_all;
use preface::Preface;

/// How long the server waits for its clients.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long the head of a request may take to arrive, counted from when the connection opened or its last answer
    /// was sent. A connection that stays silent for longer is closed.
    pub receive: Duration,
    /// How long requests in flight may take once the server was told to stop.
    pub drain: Duration,
}

/// Serves `routes` until `stop` is ready, then takes no more connections and finishes the requests in flight.
///
/// # Errors
/// When the listener fails for good.
pub async fn run(
    mut listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    patience: Patience,
) -> io::Result<Drained> {
    let server = builder(patience.receive);
    let service = TowerToHyperService::new(routes);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let stream = tokio::select! {
            (stream, _) = Listener::accept(&mut listener) => stream,
            () = &mut stop => break,
        };
        // Answers are small: waiting to fill a packet only costs time.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let stream = TokioIo::new(Preface::new(stream, patience.receive));
        let connection = connections.watch(server.serve_connection(stream, service.clone()).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke off");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = connections.shutdown() => Ok(Drained::Whole),
        () = tokio::time::sleep(patience.drain) => {
            tracing::warn!(seconds = patience.drain.as_secs(), "requests in flight were given up");
            Ok(Drained::Overdue)
        }
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

/// HTTP/1.1 and HTTP/2, each with a bound on how long a client may say nothing.
fn builder(receive: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(receive);
    // Connections of HTTP/2 carry many requests and live long, so the client only has to answer a ping.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(receive).keep_alive_timeout(receive);
    builder
}

/// Watches for what tells the process to stop: SIGTERM and Ctrl-C.
#[derive(Debug)]
pub(crate) struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Watches from now on: a signal that comes before would end the process at once. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the system doesn't let the process watch.
    pub(crate) fn watch() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Ready when one of the signals has come.
    pub(crate) async fn received(mut self) {
        #[cfg(unix)]
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        #[cfg(not(unix))]
        let name = match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(error) => {
                tracing::warn!(%error, "Ctrl-C can't be watched");
                std::future::pending().await
            }
        };
        tracing::info!(signal = name, "told to stop: draining");
    }
}
