//! Sessions of one thread, on which rows that don't build on each other are computed side by side.
//!
//! A session on all cores divides each product among them, and they wait for each other after every operator. Where there are
//! as many rows as cores, a row on each core has nothing to divide and nobody to wait for.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, TryLockError},
    thread,
};

use crate::{Cancellation, DecoderExecutor, DecoderRow, DecoderRowOutput, RuntimeError};

/// The sessions of one thread of a decoder: one for each core, or none. Whoever computes takes all of them.
#[derive(Default)]
pub struct Singles {
    sessions: Mutex<Vec<Box<dyn DecoderExecutor>>>,
}

impl Singles {
    /// Takes the sessions, which must have been made to read the model's outputs in their order.
    #[must_use]
    pub fn new(sessions: Vec<Box<dyn DecoderExecutor>>) -> Self {
        Self { sessions: Mutex::new(sessions) }
    }

    /// The sessions; `None` while somebody else computes on them.
    #[must_use]
    pub fn take(&self) -> Option<MutexGuard<'_, Vec<Box<dyn DecoderExecutor>>>> {
        match self.sessions.try_lock() {
            Ok(sessions) => Some(sessions),
            // A session can be used again after any failure.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Has them give back what they keep from row to row: of a long prompt each would hold all keys and values.
pub(super) fn forget(sessions: &mut [Box<dyn DecoderExecutor>]) {
    sessions.iter_mut().for_each(|session| session.forget());
}

impl fmt::Debug for Singles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singles").finish_non_exhaustive()
    }
}

/// Computes each row on a session of its own; gives what each gave, in their order. There must be a session for each.
pub(super) fn side_by_side<'a>(
    sessions: &mut [Box<dyn DecoderExecutor>],
    rows: impl Iterator<Item = &'a DecoderRow>,
    cancel: &Cancellation,
) -> Result<Vec<DecoderRowOutput>, RuntimeError> {
    thread::scope(|scope| {
        let running: Vec<_> = sessions
            .iter_mut()
            .zip(rows)
            .map(|(session, row)| scope.spawn(move || session.forward(row, cancel)))
            .collect();
        let panicked = |_| Err(RuntimeError::Pass { cause: "a row's pass panicked".into() });
        let given: Vec<_> = running.into_iter().map(|row| row.join().unwrap_or_else(panicked)).collect();
        given.into_iter().collect()
    })
}
