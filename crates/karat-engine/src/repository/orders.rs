//! What is asked of the one thread that loads models while the server runs.
//!
//! Loading takes memory and cores: one model after another, in the order in which it was asked for.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use karat_rules::domain::{ModelName, ModelVersion};
use tokio::sync::oneshot;

use super::LoadError;

/// What loading a model came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The version that takes requests now.
    pub version: ModelVersion,
    /// The one that took them before, if there was one. Equal to the other where the folder holds what was loaded already.
    pub before: Option<ModelVersion>,
}

/// Why a model wasn't loaded or unloaded. What took requests before does so still.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such model, loaded or not.
    #[error("there is no model {name}: neither a folder of the repository nor a --model is called so")]
    Unknown {
        /// What was asked for.
        name: ModelName,
    },
    /// It can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Composites are made of it.
    #[error("{name} is part of {composites}; unload that first")]
    InUse {
        /// What was asked for.
        name: ModelName,
        /// The composites.
        composites: String,
    },
    /// Nobody loads models any more, or here.
    #[error("the server is shutting down; send the request to another one")]
    Ended,
}

/// Something to do for whoever loads models.
pub(super) enum Order {
    /// Nothing: whoever waits for an order is to look whether the end has come.
    Wake,
    Load(ModelName, oneshot::Sender<Result<Loaded, ChangeError>>),
    Unload(ModelName, oneshot::Sender<Result<(), ChangeError>>),
}

/// The orders that wait, and whether somebody takes them.
pub(super) struct Orders {
    sender: Sender<Order>,
    waiting: Mutex<Receiver<Order>>,
    taken: AtomicBool,
}

impl Default for Orders {
    fn default() -> Self {
        let (sender, waiting) = mpsc::channel();
        Self { sender, waiting: Mutex::new(waiting), taken: AtomicBool::new(false) }
    }
}

impl Orders {
    /// Whether somebody takes orders from now on. Those that wait when nobody does any more are answered so.
    pub(super) fn set_taken(&self, taken: bool) {
        self.taken.store(taken, Ordering::SeqCst);
        if !taken {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            while waiting.try_recv().is_ok() {}
        }
    }

    /// The next order; `None` when none came within that time.
    pub(super) fn next(&self, within: Duration) -> Option<Order> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // There is always a sender: the one beside it.
        waiting.recv_timeout(within).ok()
    }

    /// Wakes whoever waits for an order.
    pub(super) fn wake(&self) {
        // The receiver lives as long as this.
        let _ = self.sender.send(Order::Wake);
    }

    /// Gives an order and waits until it is carried out.
    pub(super) async fn give<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, ChangeError>>) -> Order,
    ) -> Result<T, ChangeError> {
        if !self.taken.load(Ordering::SeqCst) {
            return Err(ChangeError::Ended);
        }
        let (reply, answer) = oneshot::channel();
        self.sender.send(order(reply)).map_err(|_| ChangeError::Ended)?;
        // Whoever stopped taking orders meanwhile may have looked before this one came.
        if !self.taken.load(Ordering::SeqCst) {
            self.set_taken(false);
        }
        answer.await.unwrap_or(Err(ChangeError::Ended))
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("taken", &self.taken).finish_non_exhaustive()
    }
}
