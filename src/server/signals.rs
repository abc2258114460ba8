//! What tells the process to stop, and to read its files anew.

use std::io;

use tokio::sync::mpsc;

/// What the process was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// By SIGTERM, as a supervisor does that takes the server out of its balancer.
    Asked,
    /// By Ctrl-C, as a person does who waits for the end.
    Interrupted,
}

/// The signals of the process, from when it is made: one that comes before would end it at once.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    /// Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the system doesn't let the process watch.
    pub(crate) fn watch() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hang_up: signal(SignalKind::hangup())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Passes on what comes: every word to stop, and every SIGHUP. A Ctrl-C that isn't the first word to stop ends the
    /// process at once, whatever is in flight.
    pub(crate) async fn pass_on(self, stop: mpsc::UnboundedSender<Stop>, reload: mpsc::UnboundedSender<()>) {
        let mut told = false;
        let mut signals = self;
        loop {
            match signals.next().await {
                None => {
                    tracing::info!(signal = "SIGHUP", "told to read keys and certificates anew");
                    // Nobody listens where there are none.
                    let _ = reload.send(());
                }
                Some(Stop::Interrupted) if told => {
                    tracing::warn!("told to stop again: requests in flight are lost");
                    exit_now(130);
                }
                Some(word) => {
                    tracing::info!(signal = word.name(), "told to stop: draining");
                    told = true;
                    // The server has ended by itself where nobody listens.
                    let _ = stop.send(word);
                }
            }
        }
    }

    /// The next word to stop, or nothing for SIGHUP.
    #[cfg(unix)]
    async fn next(&mut self) -> Option<Stop> {
        tokio::select! {
            _ = self.terminate.recv() => Some(Stop::Asked),
            _ = self.interrupt.recv() => Some(Stop::Interrupted),
            _ = self.hang_up.recv() => None,
        }
    }

    /// The next word to stop.
    #[cfg(not(unix))]
    async fn next(&mut self) -> Option<Stop> {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Some(Stop::Interrupted),
            Err(error) => {
                tracing::warn!(%error, "Ctrl-C can't be watched");
                std::future::pending().await
            }
        }
    }
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "SIGTERM",
            Self::Interrupted => "SIGINT",
        }
    }
}

/// Ends the process without taking anything down: threads that are inside ONNX Runtime would crash if its library went
/// from under them, and waiting for them takes as long as a forward pass, or an engine of TensorRT.
pub(crate) fn exit_now(status: u8) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(status.into());
    #[cfg(not(unix))]
    std::process::exit(status.into());
}
