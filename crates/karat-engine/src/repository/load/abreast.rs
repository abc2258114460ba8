//! Loads several models at once, as far as cores and memory allow.
//!
//! Much of what loading takes is one thread's: reading a tokenizer, taking a digest, optimising a graph. Reading and
//! packing weights takes memory for a while that is given back afterwards, so that models of which not all fit while they
//! are loaded go one after another.

use std::{
    num::NonZeroUsize,
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use karat_runtime::free_memory;

/// How often a model's files are in memory at most while it is loaded: as they were read, as numbers that sessions take
/// and as what is packed of them.
const COPIES: u64 = 3;

/// Does `work` for each of `items`, several at once, the first ones first; gives what came of each, in their order.
pub(super) fn each<T: Send, R: Send>(items: Vec<T>, threads: NonZeroUsize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let helpers = threads.get().min(items.len()).saturating_sub(1);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let waiting = Mutex::new(items.into_iter().zip(&results));
    let run = || {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((item, result)) = next else { return };
            let done = work(item);
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        }
    };
    thread::scope(|scope| {
        for number in 0..helpers {
            // Without it, the others take its share.
            drop(thread::Builder::new().name(format!("karat-load-{number}")).spawn_scoped(scope, run));
        }
        run();
    });
    drop(waiting);
    results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Lets models in one by one as their memory fits beside that of those that are being loaded.
pub(super) struct Room {
    free: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    taken: Mutex<Taken>,
    left: Condvar,
}

#[derive(Default)]
struct Taken {
    models: usize,
    bytes: u64,
}

/// A model that is being loaded. Its place becomes free when this is dropped.
pub(super) struct Place<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    /// The memory that is free.
    pub(super) fn new() -> Self {
        Self { free: Box::new(free_memory), taken: Mutex::default(), left: Condvar::new() }
    }

    /// Blocks until a model whose files have so many bytes fits beside those that are being loaded, or none is: whether it
    /// fits at all is told when its weights are read.
    pub(super) fn enter(&self, file_bytes: u64) -> Place<'_> {
        let bytes = file_bytes.saturating_mul(COPIES);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // What those inside have taken already counts twice, which errs on the safe side.
        while taken.models > 0 && (self.free)().is_some_and(|free| free < taken.bytes.saturating_add(bytes)) {
            taken = self.left.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.models += 1;
        taken.bytes += bytes;
        Place { room: self, bytes }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.models -= 1;
        taken.bytes -= self.bytes;
        self.room.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, mpsc};

    use super::*;

    fn two() -> NonZeroUsize {
        NonZeroUsize::new(2).unwrap()
    }

    #[test]
    fn everything_is_done_once_and_two_at_a_time() {
        // Neither of a pair goes on before the other has begun.
        let barrier = Barrier::new(2);
        let doubled = each(vec![1, 2, 3, 4], two(), |number| {
            barrier.wait();
            number * 2
        });
        assert_eq!(doubled, [2, 4, 6, 8]);
        assert!(each(Vec::new(), two(), |number: u8| number).is_empty());
    }

    #[test]
    fn what_does_not_fit_beside_others_waits_until_they_are_done() {
        let (ask, asked) = mpsc::channel();
        let free = move || {
            ask.send(()).ok();
            Some(1000)
        };
        let room = Room { free: Box::new(free), taken: Mutex::default(), left: Condvar::new() };
        // Whoever asks what is free has the lock until it waits or is in.
        let models_once_asked = || {
            asked.recv().unwrap();
            room.taken.lock().unwrap().models
        };
        let first = room.enter(200);
        let second = room.enter(100);
        assert_eq!(models_once_asked(), 2, "900 are less than 1000");
        thread::scope(|scope| {
            let large = scope.spawn(|| room.enter(300).bytes);
            assert_eq!(models_once_asked(), 2, "900 and 900 are more than 1000");
            drop(second);
            assert_eq!(models_once_asked(), 1, "600 and 900 are, too");
            drop(first);
            assert_eq!(large.join().unwrap(), 900);
        });
        // Alone it is let in, whatever there is.
        drop(room.enter(10_000));
    }
}
