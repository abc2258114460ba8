//! A queue that takes nothing more once it is closed.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A queue behind its lock. Once closed it stays closed.
#[derive(Debug)]
pub(crate) struct Gate<Q> {
    queue: Mutex<Gated<Q>>,
}

/// A queue, and whether it takes more.
#[derive(Debug)]
pub(crate) struct Gated<Q> {
    queue: Q,
    open: bool,
}

impl<Q> Gate<Q> {
    /// An open one.
    pub(crate) fn new(queue: Q) -> Self {
        Self { queue: Mutex::new(Gated { queue, open: true }) }
    }

    /// The queue, for the caller alone.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Gated<Q>> {
        // Queues change by whole entries, so that one whose holder panicked can be used.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Q> Gated<Q> {
    /// Whether the queue takes more.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn close(&mut self) {
        self.open = false;
    }
}

impl<Q> Deref for Gated<Q> {
    type Target = Q;

    fn deref(&self) -> &Q {
        &self.queue
    }
}

impl<Q> DerefMut for Gated<Q> {
    fn deref_mut(&mut self) -> &mut Q {
        &mut self.queue
    }
}
