//! A session of packed rows, shared by those that score and those that write.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use karat_rules::domain::RowTensor;

use super::{
    BLOCK_TOKENS, PackedExecutor, PackedPass, PackedShape, PackedStaging, StagedPass, blocks::Blocks, layout::Layout,
    queue::Queue,
};
use crate::{Cancellation, Purpose, RuntimeError, SharedDevice, telemetry::PackedMetrics};

/// A session with its blocks. Clones share it: those who score and those who write have turns in turn, so that nobody
/// starves, however many passes another one has to run. While one runs, the next can be laid out and written to the device.
#[derive(Clone)]
pub struct PackedSession {
    shared: Arc<Shared>,
}

struct Shared {
    executor: Mutex<Box<dyn PackedExecutor>>,
    staging: Option<Box<dyn PackedStaging>>,
    shape: PackedShape,
    blocks: Blocks,
    metrics: PackedMetrics,
    queue: Mutex<Queue>,
    turn_ended: Condvar,
    ahead: Mutex<Ahead>,
}

/// The pass that was made ready before its turn.
#[derive(Default)]
struct Ahead {
    /// How many there were.
    count: u64,
    ready: Option<Ready>,
}

/// A pass that was laid out, and its inputs where they were written as well.
pub(super) struct Ready {
    pub(super) layout: Layout,
    pub(super) staged: Option<StagedPass>,
}

/// A claim to the pass that was made ready, which is given up with it.
pub(super) struct Claim<'a> {
    shared: &'a Shared,
    number: u64,
}

/// The session in one hand, until it is dropped.
pub(super) struct Turn<'a> {
    executor: MutexGuard<'a, Box<dyn PackedExecutor>>,
    /// Nobody else leases more of them in the meantime, but for a pass that is made ready: see [`Turn::reclaim`].
    pub(super) blocks: &'a Blocks,
    shared: &'a Shared,
    _place: Place<'a>,
}

/// A place in the queue, which ends with it.
struct Place<'a>(&'a Shared);

impl PackedSession {
    /// Takes a session, all of whose blocks are free.
    #[must_use]
    pub fn new(executor: Box<dyn PackedExecutor>, metrics: PackedMetrics) -> Self {
        let shape = executor.shape();
        let shared = Shared {
            staging: executor.staging(),
            executor: Mutex::new(executor),
            shape,
            blocks: Blocks::new(shape.blocks, metrics.clone()),
            metrics,
            queue: Mutex::default(),
            turn_ended: Condvar::new(),
            ahead: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The model's measures.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.shared.shape
    }

    /// What all who share it have in common.
    pub(super) fn device(&self) -> Arc<dyn SharedDevice> {
        Arc::clone(&self.shared) as Arc<dyn SharedDevice>
    }

    /// How many have a turn or wait for one.
    #[cfg(test)]
    pub(super) fn in_line(&self) -> usize {
        lock(&self.shared.queue).len()
    }

    /// Which blocks are taken.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> &Blocks {
        &self.shared.blocks
    }

    /// Makes a pass ready while another one runs; `None` where none runs or one is ready already. What it leases goes
    /// back when somebody who has the turn needs it.
    pub(super) fn prepare(&self, layout: impl FnOnce(&Blocks) -> Layout) -> Option<Claim<'_>> {
        let shared = &*self.shared;
        let busy = lock(&shared.queue).is_busy();
        // Held until it is ready, so that whoever needs its blocks can have them.
        let mut ahead = lock(&shared.ahead);
        if !busy || ahead.ready.is_some() {
            return None;
        }
        ahead.count += 1;
        let layout = layout(&shared.blocks);
        // What can't be written now is written in its turn, which then tells why not.
        let staged = shared.staging.as_ref().filter(|_| !layout.placed.is_empty());
        let staged = staged.and_then(|staging| staging.stage(&layout.pass).ok());
        ahead.ready = Some(Ready { layout, staged });
        Some(Claim { shared, number: ahead.count })
    }

    /// Waits for the next turn.
    pub(super) fn turn(&self, purpose: Purpose) -> Turn<'_> {
        let shared = &*self.shared;
        let mut queue = lock(&shared.queue);
        let number = queue.enter(purpose);
        while !queue.serves(number) {
            queue = shared.turn_ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        let place = Place(shared);
        Turn { executor: lock(&shared.executor), blocks: &shared.blocks, shared, _place: place }
    }
}

impl SharedDevice for Shared {
    fn known(&self, ids: &[u32]) -> usize {
        self.blocks.known(ids) * BLOCK_TOKENS
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Claim<'_> {
    /// The pass, unless its blocks were needed.
    pub(super) fn take(self) -> Option<Ready> {
        self.taken()
    }

    fn taken(&self) -> Option<Ready> {
        let mut ahead = lock(&self.shared.ahead);
        if ahead.count == self.number { ahead.ready.take() } else { None }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        drop(self.taken());
    }
}

impl Turn<'_> {
    /// Takes back what a pass leases that was made ready for a later turn; whether there was one.
    pub(super) fn reclaim(&self) -> bool {
        let ready = lock(&self.shared.ahead).ready.take();
        ready.is_some()
    }

    /// Runs a pass.
    pub(super) fn run(
        &mut self,
        pass: &PackedPass,
        staged: Option<StagedPass>,
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        let given = match staged {
            Some(staged) => self.executor.forward_staged(pass, staged, cancel),
            None => self.executor.forward(pass, cancel),
        }?;
        self.shared.metrics.pass(pass.tokens.len(), pass.sequences.len());
        Ok(given)
    }
}

impl fmt::Debug for PackedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedSession").field("shape", &self.shared.shape).finish_non_exhaustive()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).leave();
        self.0.turn_ended.notify_all();
    }
}

/// An executor whose pass panicked can be used again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
