//! What is asked of the scheduler and what comes back.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use karat_rules::domain::{RowTensor, TokenizedInput};
use karat_runtime::RuntimeError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{ClientId, JobId, QueueLimits, dispatch::Dispatch};

/// Which jobs go first while others wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// When nothing else waits, such as offline evaluation.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before everything else, such as a person who waits.
    High,
}

impl Priority {
    /// 0 goes first.
    pub(super) fn level(self) -> u8 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }
}

/// One sample to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The sample.
    pub input: Arc<TokenizedInput>,
    /// Whose it is. Clients are served in turn.
    pub client: ClientId,
    /// Which jobs it goes before.
    pub priority: Priority,
    /// When its result is no longer wanted. A pass that has started is finished nonetheless.
    pub deadline: Option<Instant>,
    /// Whether it may be refused because too much waits.
    pub admission: Admission,
}

/// Whether a job may be refused because too much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Admission {
    /// Yes, and its client is told when to come back.
    #[default]
    Bounded,
    /// Only when it may be expected to wait longer than that: its client is better served late than refused, but not so
    /// late that it has gone.
    Within(Duration),
    /// No. Deadlines hold nonetheless.
    Always,
}

impl Admission {
    /// The longest that a job may be expected to wait, where that is bounded.
    pub(super) fn bound(self, limits: &QueueLimits) -> Option<Duration> {
        match self {
            Self::Bounded => limits.wait,
            Self::Within(patience) => Some(patience),
            Self::Always => None,
        }
    }
}

impl Job {
    /// A job of normal priority without a deadline.
    #[must_use]
    pub fn new(input: Arc<TokenizedInput>) -> Self {
        Self {
            input,
            client: ClientId::default(),
            priority: Priority::Normal,
            deadline: None,
            admission: Admission::Bounded,
        }
    }
}

/// What a forward pass gave for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// One tensor for each bound output.
    pub rows: Vec<RowTensor>,
    /// The time from submission to the start of the pass.
    pub queued: Duration,
    /// The time that the pass took.
    pub running: Duration,
    /// How many samples shared the pass.
    pub batch_size: usize,
    /// The pass, which is the same one for all of them.
    pub pass: Arc<PassRecord>,
}

/// A forward pass that gave results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassRecord {
    /// Tells it from every other.
    pub id: PassId,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub running: Duration,
    /// How many samples shared it.
    pub samples: usize,
    /// How many tokens they have, padding left out.
    pub tokens: usize,
}

/// The identity of a forward pass in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PassId(u64);

impl PassId {
    /// One that no other pass has.
    #[must_use]
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a job gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JobError {
    /// Its deadline passed before its pass began.
    #[error("the deadline passed before the sample's turn came")]
    Expired,
    /// The scheduler was stopped.
    #[error("the scheduler stopped before the sample's turn came")]
    Stopped,
    /// The executor panicked; the message is in the log.
    #[error("the forward pass broke off unexpectedly")]
    Panicked,
    /// The forward pass failed with this sample alone in it.
    #[error(transparent)]
    Runtime(Arc<RuntimeError>),
}

/// Why jobs were not admitted. None of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueRefusal {
    /// Too many tokens wait.
    #[error("{waiting_tokens} tokens wait already; try again in {retry_after:?}")]
    Full {
        /// What waits now.
        waiting_tokens: usize,
        /// When there will be room, judged by the measured rate.
        retry_after: Duration,
    },
    /// The jobs would wait longer than is allowed, or beyond their deadline.
    #[error("the wait would be about {wait:?}; try again in {retry_after:?}")]
    TooSlow {
        /// The expected wait.
        wait: Duration,
        /// When the wait will be short enough, judged by the measured rate.
        retry_after: Duration,
    },
    /// The scheduler takes no more jobs.
    #[error("the server is shutting down")]
    Stopped,
}

impl QueueRefusal {
    /// When it's worth trying again; `None` when it never is.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full { retry_after, .. } | Self::TooSlow { retry_after, .. } => Some(*retry_after),
            Self::Stopped => None,
        }
    }
}

/// The pending result of one job: a future that is ready when the job is. Dropping it abandons the job, which then
/// costs no forward pass; a running pass is stopped when all its tickets are dropped.
#[derive(Debug)]
#[must_use = "dropping a ticket abandons its job"]
pub struct Ticket {
    result: oneshot::Receiver<Result<Completed, JobError>>,
    id: JobId,
    /// Unset once there is nothing left to abandon.
    dispatch: Option<Weak<Dispatch>>,
}

impl Ticket {
    pub(super) fn new(
        result: oneshot::Receiver<Result<Completed, JobError>>,
        id: JobId,
        dispatch: Weak<Dispatch>,
    ) -> Self {
        Self { result, id, dispatch: Some(dispatch) }
    }
}

impl Future for Ticket {
    type Output = Result<Completed, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.result).poll(context));
        self.dispatch = None;
        // The sending side is only dropped unused when the scheduler is.
        Poll::Ready(result.unwrap_or(Err(JobError::Stopped)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Closed first: a worker that is about to answer must see that nobody listens.
        self.result.close();
        if self.result.try_recv().is_ok() {
            return;
        }
        if let Some(dispatch) = self.dispatch.take().and_then(|dispatch| dispatch.upgrade()) {
            dispatch.abandon(self.id);
        }
    }
}
