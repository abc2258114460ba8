//! Hands the tokens of a text over as they come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use karat_runtime::RuntimeError;
use tokio::sync::mpsc;

use super::sampling::Picked;

/// Why a text broke off.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GenerateError {
    /// The model failed, with this text alone in the row.
    #[error(transparent)]
    Runtime(Arc<RuntimeError>),
    /// The model gave what is no number.
    #[error("the model returned a logit that is not finite")]
    NotFinite,
    /// The executor panicked; the message is in the log.
    #[error("the forward pass broke off unexpectedly")]
    Panicked,
    /// The generator was stopped.
    #[error("the server is shutting down; send the request to another one")]
    Stopped,
}

/// What happens to a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    /// It has one more token.
    Token(Picked),
    /// It is complete.
    End(Finish),
}

/// Why a text is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model ended it.
    End,
    /// It has as many tokens as it may have.
    Length,
}

/// The tokens of one text as they come. Dropping it ends the text.
#[derive(Debug)]
pub(crate) struct Stream {
    events: mpsc::UnboundedReceiver<Result<Event, GenerateError>>,
    has_enough: Arc<AtomicBool>,
}

impl Stream {
    /// What comes next; `None` after the end or an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, GenerateError>> {
        self.events.recv().await
    }

    /// What comes next, for those who wait for several texts at once.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, GenerateError>>> {
        self.events.poll_recv(context)
    }

    /// Ends the text where its reader has enough of it. Unlike one that is dropped, it doesn't count as given up.
    pub(crate) fn end(&mut self) {
        self.has_enough.store(true, Ordering::Release);
        self.events.close();
    }
}

/// Where the worker sends what happens to a text.
#[derive(Debug)]
pub(super) struct Sender {
    events: mpsc::UnboundedSender<Result<Event, GenerateError>>,
    has_enough: Arc<AtomicBool>,
}

impl Sender {
    /// Both ends of a text that is to be written.
    pub(super) fn pair() -> (Self, Stream) {
        let (sender, events) = mpsc::unbounded_channel();
        let has_enough = Arc::new(AtomicBool::new(false));
        (Self { events: sender, has_enough: Arc::clone(&has_enough) }, Stream { events, has_enough })
    }

    /// That nobody listens any more is no error.
    pub(super) fn send(&self, event: Result<Event, GenerateError>) {
        drop(self.events.send(event));
    }

    /// Whether nobody listens any more.
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the reader left before the text was over.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_closed() && !self.has_enough.load(Ordering::Acquire)
    }
}
