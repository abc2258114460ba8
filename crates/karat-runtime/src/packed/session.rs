//! A session of packed rows, shared by those that score and those that write.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{PackedExecutor, PackedShape, blocks::Blocks};

/// A session with its blocks. Clones share it: whoever wants a pass gets the next turn, so that nobody starves, however
/// many passes another one has to run.
#[derive(Clone)]
pub struct PackedSession {
    shared: Arc<Shared>,
}

struct Shared {
    executor: Mutex<Box<dyn PackedExecutor>>,
    shape: PackedShape,
    blocks: Blocks,
    queue: Mutex<Queue>,
    turn_ended: Condvar,
}

/// Numbers as in a waiting room.
#[derive(Default)]
struct Queue {
    next: u64,
    serving: u64,
}

/// The session in one hand, until it is dropped.
pub(super) struct Turn<'a> {
    /// Runs a pass.
    pub(super) executor: MutexGuard<'a, Box<dyn PackedExecutor>>,
    /// Nobody else leases more of them in the meantime.
    pub(super) blocks: &'a Blocks,
    _place: Place<'a>,
}

/// A place in the queue, which ends with it.
struct Place<'a>(&'a Shared);

impl PackedSession {
    /// Takes a session, all of whose blocks are free.
    #[must_use]
    pub fn new(executor: Box<dyn PackedExecutor>) -> Self {
        let shape = executor.shape();
        let shared = Shared {
            executor: Mutex::new(executor),
            shape,
            blocks: Blocks::new(shape.blocks),
            queue: Mutex::default(),
            turn_ended: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The model's measures.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.shared.shape
    }

    /// Which blocks are taken.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> &Blocks {
        &self.shared.blocks
    }

    /// Waits for the next turn.
    pub(super) fn turn(&self) -> Turn<'_> {
        let shared = &*self.shared;
        let mut queue = lock(&shared.queue);
        let number = queue.next;
        queue.next += 1;
        while queue.serving != number {
            queue = shared.turn_ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        let place = Place(shared);
        Turn { executor: lock(&shared.executor), blocks: &shared.blocks, _place: place }
    }
}

impl fmt::Debug for PackedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedSession").field("shape", &self.shared.shape).finish_non_exhaustive()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).serving += 1;
        self.0.turn_ended.notify_all();
    }
}

/// An executor whose pass panicked can be used again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
