//! Scoring and writing take turns on the cores.
//!
//! A pass on all cores spins from one operator to the next. Two of them on the same cores spin against each other, and
//! take far longer together than one after the other. So a pass that scores and one that writes never run at once, and
//! where both are wanted each purpose gets half of the time, by what its passes took. Passes of one purpose run side by
//! side as they like, and where nothing is written nobody waits for anything.

mod shares;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use karat_rules::domain::RowTensor;

use self::shares::{Answer, Shares};
use crate::{
    Cancellation, DecoderExecutor, DecoderRow, DecoderRowOutput, DecoderShape, Executor, RuntimeError, Shapes,
    TokenBatch,
};

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Scores.
    Scoring,
    /// The next tokens of texts.
    Writing,
}

/// The turns that passes take on the cores of a machine. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    shares: Mutex<Shares>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shares> {
        // Each change of it is whole.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// Whether no pass runs or is wanted, and none did since this was asked last, but some ran before that. Told once.
    pub(crate) fn have_come_to_rest(&self) -> bool {
        self.shared.lock().have_come_to_rest()
    }

    /// Blocks until a pass may run, or `cancel` is used.
    fn take(&self, purpose: Purpose, cancel: &Cancellation) -> Result<Turn<'_>, RuntimeError> {
        let shared = &*self.shared;
        let _registration = cancel.on_cancel({
            let shared = Arc::clone(&self.shared);
            move || {
                // Taken so that the notice can't fall between a waiter's check and its sleep.
                drop(shared.lock());
                shared.changed.notify_all();
            }
        });
        let mut shares = shared.lock();
        shares.arrive(purpose, Instant::now());
        loop {
            if cancel.is_cancelled() {
                shares.leave(purpose);
                shared.changed.notify_all();
                return Err(RuntimeError::Cancelled);
            }
            let now = Instant::now();
            shares = match shares.may_start(purpose, now) {
                Answer::Yes => break,
                Answer::OnChange => shared.changed.wait(shares).unwrap_or_else(PoisonError::into_inner),
                Answer::At(then) => {
                    let rest = then.saturating_duration_since(now);
                    shared.changed.wait_timeout(shares, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        shares.start(purpose, Instant::now());
        Ok(Turn { shared, purpose })
    }
}

/// A pass that runs.
struct Turn<'a> {
    shared: &'a Shared,
    purpose: Purpose,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.lock().end(self.purpose, Instant::now());
        self.shared.changed.notify_all();
    }
}

/// A session whose passes take turns with those of the other purpose.
#[derive(Debug)]
pub(crate) struct InTurns<E> {
    turns: Turns,
    purpose: Purpose,
    session: E,
    /// By which its graph knows that it is there.
    _lease: Arc<()>,
}

impl<E> InTurns<E> {
    /// Takes a session that runs on the machine's cores, and a clone of what is counted of its graph's sessions.
    pub(crate) fn new(session: E, turns: Turns, purpose: Purpose, lease: Arc<()>) -> Self {
        Self { turns, purpose, session, _lease: lease }
    }
}

impl<E: Executor> Executor for InTurns<E> {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        let _turn = self.turns.take(self.purpose, cancel)?;
        self.session.run(batch, cancel)
    }

    fn pads(&self) -> bool {
        self.session.pads()
    }

    fn take_retries(&mut self) -> usize {
        self.session.take_retries()
    }

    fn shapes(&self) -> Option<Shapes> {
        self.session.shapes()
    }

    fn allow_rounding(&mut self, allowed: bool) {
        self.session.allow_rounding(allowed);
    }
}

impl<E: DecoderExecutor> DecoderExecutor for InTurns<E> {
    fn forward(&mut self, row: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError> {
        let _turn = self.turns.take(self.purpose, cancel)?;
        self.session.forward(row, cancel)
    }

    fn shape(&self) -> DecoderShape {
        self.session.shape()
    }

    fn forget(&mut self) {
        self.session.forget();
    }
}

#[cfg(test)]
mod tests;
