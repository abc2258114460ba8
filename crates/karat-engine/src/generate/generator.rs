//! The driver: admits orders, runs rows on its thread, and hands tokens out as they come.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
};

use karat_runtime::{Cancellation, DecoderExecutor, RuntimeError};
use tokio::sync::mpsc;

use super::{
    sampling::{Picked, Sampling},
    slots,
    worker::Worker,
};
use crate::telemetry::ModelMetrics;

/// How much is written at once, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most texts that are written at once.
    pub texts: usize,
    /// The most tokens, of prompts and texts, whose keys and values are held at once.
    pub tokens: usize,
    /// The most orders that may wait.
    pub waiting: usize,
    /// The most tokens of a row: what prompts may take of one step.
    pub row: usize,
}

impl Default for Limits {
    /// 16 texts, 16,384 tokens, 64 waiting orders, rows of up to 256 tokens, from which on processor cores gain nothing.
    fn default() -> Self {
        Self { texts: 16, tokens: 1 << 14, waiting: 64, row: 256 }
    }
}

/// One or several texts to write after the same prompt.
#[derive(Debug, Clone)]
pub struct Order {
    /// The prompt's tokens, at least one.
    pub prompt: Arc<[u32]>,
    /// How each text's tokens are chosen; at least one text.
    pub texts: Vec<Sampling>,
    /// The most tokens of each text.
    pub max_tokens: NonZeroUsize,
    /// The tokens that end a text and aren't part of it.
    pub ends: Arc<[u32]>,
}

impl Order {
    /// How many blocks of places it may come to take.
    pub(super) fn blocks(&self) -> usize {
        slots::blocks(self.prompt.len()) + self.texts.len() * slots::blocks(self.max_tokens.get())
    }
}

/// Why an order was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many wait.
    #[error("{0} requests wait for their texts already; try again later")]
    Full(usize),
    /// It is larger than the whole generator.
    #[error(
        "the prompt and its texts may come to {tokens} tokens, and at most {most} are held at once; ask for fewer or \
         shorter texts"
    )]
    TooLarge {
        /// What it may come to.
        tokens: usize,
        /// What is held at once.
        most: usize,
    },
    /// It asks for more texts than are ever written at once.
    #[error("{texts} texts are asked for, and at most {most} are written at once; ask for fewer")]
    TooMany {
        /// What it asks for.
        texts: usize,
        /// What is written at once.
        most: usize,
    },
    /// The order holds no prompt or no text.
    #[error("there is no prompt to go on from, or no text is asked for")]
    Empty,
    /// The generator takes no more orders.
    #[error("the server is shutting down; send the request to another one")]
    Stopped,
}

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
pub enum Event {
    /// It has one more token.
    Token(Picked),
    /// It is complete.
    End(Finish),
}

/// Why a text is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    End,
    /// It has as many tokens as it may have.
    Length,
}

/// The tokens of one text as they come. Dropping it ends the text.
#[derive(Debug)]
pub struct Stream {
    events: mpsc::UnboundedReceiver<Result<Event, GenerateError>>,
    has_enough: Arc<AtomicBool>,
}

impl Stream {
    /// What comes next; `None` after the end or an error.
    pub async fn next(&mut self) -> Option<Result<Event, GenerateError>> {
        self.events.recv().await
    }

    /// What comes next, for those who wait for several texts at once.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, GenerateError>>> {
        self.events.poll_recv(context)
    }

    /// Ends the text where its reader has enough of it. Unlike one that is dropped, it doesn't count as given up.
    pub fn end(&mut self) {
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
    fn pair() -> (Self, Stream) {
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

/// An order with those who wait for its texts.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) order: Order,
    pub(super) senders: Vec<Sender>,
    /// How many orders that came later have begun before it.
    passed_by: usize,
}

/// How many later orders may begin before one that doesn't fit yet: enough that a large one holds nobody up while
/// there is room, and few enough that a stream of small ones never keeps it waiting for ever.
const PATIENCE: usize = 16;

impl Waiting {
    pub(super) fn is_abandoned(&self) -> bool {
        self.senders.iter().all(Sender::is_closed)
    }
}

/// Writes texts with one model. Dropping it breaks off what is being written.
#[derive(Debug)]
pub struct Generator {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wanted: Condvar,
    pub(super) limits: Limits,
    pub(super) metrics: ModelMetrics,
    pub(super) cancellation: Cancellation,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    stopping: bool,
}

impl Generator {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(executor: Box<dyn DecoderExecutor>, limits: Limits, metrics: ModelMetrics) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wanted: Condvar::new(),
            limits,
            metrics,
            cancellation: Cancellation::new(),
        });
        let thread = thread::Builder::new().name("karat-write".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || Worker::new(&shared, executor).work()
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Admits an order: one stream for each of its texts, in their order.
    ///
    /// # Errors
    /// When too many wait, it is too large, or the generator is stopping.
    pub fn submit(&self, order: Order) -> Result<Vec<Stream>, Refusal> {
        let limits = &self.shared.limits;
        if order.prompt.is_empty() || order.texts.is_empty() {
            return Err(Refusal::Empty);
        }
        if order.texts.len() > limits.texts {
            return Err(Refusal::TooMany { texts: order.texts.len(), most: limits.texts });
        }
        if order.blocks() > slots::blocks(limits.tokens) {
            let tokens = order.prompt.len() + order.texts.len() * order.max_tokens.get();
            return Err(Refusal::TooLarge { tokens, most: limits.tokens });
        }
        let mut state = self.shared.lock();
        if state.stopping {
            return Err(Refusal::Stopped);
        }
        state.waiting.retain(|waiting| !waiting.is_abandoned());
        if state.waiting.len() >= limits.waiting {
            self.shared.metrics.generation_refused();
            return Err(Refusal::Full(state.waiting.len()));
        }
        let (senders, streams) = order.texts.iter().map(|_| Sender::pair()).unzip();
        state.waiting.push_back(Waiting { order, senders, passed_by: 0 });
        self.shared.wanted.notify_one();
        Ok(streams)
    }

    /// Takes no more orders, finishes all that wait and run, and ends the thread. Blocks until then.
    pub fn shutdown(&self) {
        self.shared.lock().stopping = true;
        self.shared.wanted.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes texts panicked");
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.shared.lock().waiting.clear();
        self.shared.cancellation.cancel();
        self.shutdown();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are pushed and popped whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next order that `fits`: the first, or one behind it while those ahead have the patience. Waits for one while `idle`; `None` when there is none to start now,
    /// or, if `idle`, ever again.
    pub(super) fn next(&self, idle: bool, fits: impl Fn(&Order) -> bool) -> Option<Waiting> {
        let mut state = self.lock();
        loop {
            state.waiting.retain(|waiting| !waiting.is_abandoned());
            let patient = state.waiting.iter().take_while(|waiting| waiting.passed_by < PATIENCE).count();
            // Behind the first that has lost patience nobody begins, though itself may.
            if let Some(at) = state.waiting.iter().take(patient + 1).position(|waiting| fits(&waiting.order)) {
                state.waiting.iter_mut().take(at).for_each(|ahead| ahead.passed_by += 1);
                return state.waiting.remove(at);
            }
            if !idle || state.stopping {
                return None;
            }
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::Recorded;

    #[test]
    fn an_order_that_does_not_fit_is_passed_by_a_few_times_and_never_for_ever() {
        let metrics = Recorded::new();
        let shared = Shared {
            state: Mutex::default(),
            wanted: Condvar::new(),
            limits: Limits::default(),
            metrics: metrics.model.clone(),
            cancellation: Cancellation::new(),
        };
        let mut streams = Vec::new();
        let mut wait = |texts: usize| {
            let order = Order {
                prompt: [1].into(),
                texts: vec![Sampling::GREEDY; texts],
                max_tokens: NonZeroUsize::MIN,
                ends: [].into(),
            };
            let (senders, readers): (_, Vec<_>) = order.texts.iter().map(|_| Sender::pair()).unzip();
            shared.lock().waiting.push_back(Waiting { order, senders, passed_by: 0 });
            streams.extend(readers);
        };
        wait(9);
        (0..2 * PATIENCE).for_each(|_| wait(1));
        let next =
            |room| shared.next(false, |order| order.texts.len() <= room).map(|waiting| waiting.order.texts.len());
        for _ in 0..PATIENCE {
            assert_eq!(next(8), Some(1), "there is room for it");
        }
        assert_eq!(next(8), None, "what becomes free is kept for the first");
        assert_eq!(next(9), Some(9));
        assert_eq!(next(8), Some(1));
    }
}
