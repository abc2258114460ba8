//! Takes what was scored off the threads that answer clients, for next to nothing.
//!
//! A request leaves its samples' numbers at the end of one flat buffer: nothing is hashed, and hardly anything allocated,
//! for it. All that waits is folded into its runs together, and by whoever comes first:
//! - a thread of its own, which is woken by the first request after a rest, lets more gather for [`GATHER`] and then folds;
//!   so it wakes a few times a second, however many requests there are, and never while nothing is scored;
//! - the same thread at once, where the buffer passes [`MARK`];
//! - a reader, who [flushes](Recorder::flush) first, and so is told of all that was acknowledged before.
//!
//! Scoring never waits for any of them. What finds the buffer full is left out of the statistics, and counted.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{ClaimedRun, Runs};
use crate::{
    run::{Batch, Origin},
    statistics::Observation,
};

/// How long the thread lets requests gather. Whoever listens to events hears of them so much later.
const GATHER: Duration = Duration::from_millis(50);
/// From how many bytes on what waits is folded at once.
const MARK: usize = 1 << 20;
/// The most bytes that wait, but for the last request's.
const MOST: usize = 16 << 20;

/// The buffer's entrance.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    runs: Arc<Runs>,
    waiting: Mutex<Waiting>,
    more: Condvar,
    /// What is being folded, or else an empty buffer. Who holds it folds; everything before is folded once he has let go.
    folding: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Waiting {
    buffer: Buffer,
    /// Whether the thread has to be woken.
    asleep: bool,
    ended: bool,
}

/// What requests left, one behind the other.
#[derive(Debug, Default)]
struct Buffer {
    requests: Vec<Left>,
    samples: Vec<Observation>,
    members: Vec<f32>,
}

/// What one request left.
#[derive(Debug)]
struct Left {
    run: ClaimedRun,
    origin: Origin,
    samples: usize,
    members: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves a request behind whose samples are missing, or folded twice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Starts the thread that folds into `runs`. It ends when the recorder is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(runs: Arc<Runs>) -> io::Result<Self> {
        let (waiting, more, folding) = (Mutex::default(), Condvar::new(), Mutex::default());
        let shared = Arc::new(Shared { runs, waiting, more, folding });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("karat-runs".to_owned()).spawn(move || theirs.keep_folding())?;
        Ok(Self { shared, dropped: AtomicU64::new(0) })
    }

    /// Leaves a request's samples to be recorded, with the members' scores, as many for each or none at all. Never waits
    /// for statistics.
    pub fn record(
        &self,
        run: ClaimedRun,
        origin: Origin,
        samples: impl Iterator<Item = Observation>,
        members: impl Iterator<Item = f32>,
    ) {
        let mut waiting = lock(&self.shared.waiting);
        let before = waiting.buffer.bytes();
        if before >= MOST {
            drop(waiting);
            self.dropped.fetch_add(samples.count() as u64 + origin.unscored, Ordering::Relaxed);
            return;
        }
        waiting.buffer.push(run, origin, samples, members);
        let passes = before < MARK && waiting.buffer.bytes() >= MARK;
        let wakes = std::mem::take(&mut waiting.asleep) || passes;
        drop(waiting);
        if wakes {
            self.shared.more.notify_one();
        }
    }

    /// Folds everything that was left before.
    pub fn flush(&self) {
        self.shared.fold();
    }

    /// How many samples found the buffer full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.shared.waiting).ended = true;
        self.shared.more.notify_one();
    }
}

impl Shared {
    fn fold(&self) {
        let mut folding = lock(&self.folding);
        std::mem::swap(&mut *folding, &mut lock(&self.waiting).buffer);
        folding.fold_into(&self.runs);
        folding.clear();
    }

    fn keep_folding(&self) {
        loop {
            let mut waiting = lock(&self.waiting);
            waiting.asleep = waiting.buffer.requests.is_empty();
            let rests = |waiting: &mut Waiting| waiting.asleep && !waiting.ended;
            let waiting = self.more.wait_while(waiting, rests).unwrap_or_else(PoisonError::into_inner);
            let gathers = |waiting: &mut Waiting| !waiting.ended && waiting.buffer.bytes() < MARK;
            let gathered = self.more.wait_timeout_while(waiting, GATHER, gathers);
            let (waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            let ended = waiting.ended;
            drop(waiting);
            self.fold();
            if ended {
                return;
            }
        }
    }
}

impl Buffer {
    fn push(
        &mut self,
        run: ClaimedRun,
        origin: Origin,
        samples: impl Iterator<Item = Observation>,
        members: impl Iterator<Item = f32>,
    ) {
        let before = (self.samples.len(), self.members.len());
        self.samples.extend(samples);
        self.members.extend(members);
        let (samples, members) = (self.samples.len() - before.0, self.members.len() - before.1);
        self.requests.push(Left { run, origin, samples, members });
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.requests) + size_of_val(&*self.samples) + size_of_val(&*self.members)
    }

    /// Folds what requests left, of each run in their order, and of neighbours of one run together.
    fn fold_into(&self, runs: &Runs) {
        let (mut samples, mut members) = (&self.samples[..], &self.members[..]);
        for of_one_run in self.requests.chunk_by(|one, next| one.run.is(&next.run)) {
            let batches = of_one_run.iter().map(|left| Batch {
                origin: &left.origin,
                samples: samples.split_off(..left.samples).unwrap_or_default(),
                members: members.split_off(..left.members).unwrap_or_default(),
            });
            runs.add(&of_one_run[0].run, batches, milliseconds());
        }
    }

    /// Empties it, and gives the memory of a rush back.
    fn clear(&mut self) {
        if self.bytes() > MARK {
            *self = Self::default();
        }
        self.requests.clear();
        self.samples.clear();
        self.members.clear();
    }
}

/// The time in milliseconds since 1970.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
