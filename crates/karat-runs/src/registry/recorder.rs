//! Takes what was scored off the hands of who answers clients, for next to nothing.
//!
//! A request leaves its samples' numbers at the end of one flat buffer: nothing is hashed, and hardly anything allocated,
//! for it. Requests of one step that follow each other share all else that they leave, and are taken in as one. All that
//! waits is folded into its runs together, and by whoever comes first:
//! - the request that fills the buffer up to [`MARK`], about a hundred of 32 samples at once; handing them to another core
//!   would cost more than folding them where they were written does;
//! - a thread of its own, which is woken by the first request after a rest, and folds what gathered for a while in which
//!   nobody else did; so it wakes a few times a second, however many requests there are, and never while nothing is scored;
//! - a reader, who [flushes](Recorder::flush) first, and so is told of all that was acknowledged before.
//!
//! No request waits for another that folds. What finds the buffer full is left out of the statistics, and counted.

use std::{
    io, mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{ClaimedRun, Runs};
use crate::{
    run::{Batch, Origin, Request},
    statistics::{Gathered, Kind, Observation},
};

/// From how many bytes on what waits is folded at once: those of some 3,000 samples with one member.
const MARK: usize = 64 << 10;
/// The most bytes that wait, but for the last request's, while others are being folded.
const MOST: usize = 16 << 20;
/// The most bytes of which an empty buffer keeps the memory.
const KEPT: usize = 1 << 20;

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
    /// Whether somebody folded while the thread lets requests gather.
    folded: bool,
    ended: bool,
}

/// What requests left, one behind the other.
#[derive(Debug, Default)]
struct Buffer {
    parts: Vec<Part>,
    /// Each with how many samples it left.
    requests: Vec<(Request, usize)>,
    gathered: Gathered,
}

/// Requests that follow each other and have all of this in common.
#[derive(Debug)]
struct Part {
    run: ClaimedRun,
    origin: Origin,
    kind: Kind,
    requests: usize,
    samples: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves a request behind whose samples are missing, or folded twice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Starts the thread that folds into `runs` what gathered for so long. It ends when the recorder is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(runs: Arc<Runs>, gather: Duration) -> io::Result<Self> {
        let (waiting, more, folding) = (Mutex::default(), Condvar::new(), Mutex::default());
        let shared = Arc::new(Shared { runs, waiting, more, folding });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("karat-runs".to_owned()).spawn(move || theirs.keep_folding(gather))?;
        Ok(Self { shared, dropped: AtomicU64::new(0) })
    }

    /// Leaves a request's samples to be recorded, with the members' scores, as many for each or none at all. Where that
    /// fills the buffer and nobody folds, it is folded here.
    pub fn record(
        &self,
        run: ClaimedRun,
        origin: Origin,
        request: Request,
        samples: impl Iterator<Item = Observation> + Clone,
        members: impl Iterator<Item = f32>,
    ) {
        let mut waiting = lock(&self.shared.waiting);
        if waiting.buffer.bytes() >= MOST {
            drop(waiting);
            self.dropped.fetch_add(samples.count() as u64 + request.unscored, Ordering::Relaxed);
            return;
        }
        waiting.buffer.push(run, origin, request, samples, members);
        let is_full = waiting.buffer.bytes() >= MARK;
        let wakes = mem::take(&mut waiting.asleep);
        drop(waiting);
        if wakes {
            self.shared.more.notify_one();
        }
        if is_full {
            self.shared.fold_unless_busy();
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
        self.fold_with(lock(&self.folding));
    }

    fn fold_unless_busy(&self) {
        match self.folding.try_lock() {
            Ok(folding) => self.fold_with(folding),
            Err(TryLockError::Poisoned(folding)) => self.fold_with(folding.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn fold_with(&self, mut folding: MutexGuard<'_, Buffer>) {
        let mut waiting = lock(&self.waiting);
        mem::swap(&mut *folding, &mut waiting.buffer);
        waiting.folded = true;
        drop(waiting);
        folding.fold_into(&self.runs);
        folding.clear();
    }

    fn keep_folding(&self, gather: Duration) {
        loop {
            let mut waiting = lock(&self.waiting);
            waiting.asleep = waiting.buffer.requests.is_empty();
            let rests = |waiting: &mut Waiting| waiting.asleep && !waiting.ended;
            let mut waiting = self.more.wait_while(waiting, rests).unwrap_or_else(PoisonError::into_inner);
            waiting.folded = false;
            let gathered = self.more.wait_timeout_while(waiting, gather, |waiting| !waiting.ended);
            let (waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            let Waiting { ended, folded, .. } = *waiting;
            drop(waiting);
            // While requests fill the buffer again and again, what is left of the last ones can wait.
            if ended || !folded {
                self.fold();
            }
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
        request: Request,
        samples: impl Iterator<Item = Observation> + Clone,
        members: impl Iterator<Item = f32>,
    ) {
        let (samples, kind) = self.gathered.extend(samples, members);
        self.requests.push((request, samples));
        let fits = |part: &&mut Part| part.run.is(&run) && part.origin == origin && (part.kind == kind || samples == 0);
        match self.parts.last_mut().filter(fits) {
            Some(part) => {
                part.requests += 1;
                part.samples += samples;
            }
            None => self.parts.push(Part { run, origin, kind, requests: 1, samples }),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.parts) + size_of_val(&*self.requests) + self.gathered.bytes()
    }

    /// Folds what requests left, of each run in their order, and of neighbours of one run together.
    fn fold_into(&self, runs: &Runs) {
        let (mut requests, mut gathered) = (&self.requests[..], self.gathered.in_parts());
        for of_one_run in self.parts.chunk_by(|one, next| one.run.is(&next.run)) {
            let batches = of_one_run.iter().map(|part| Batch {
                origin: &part.origin,
                requests: requests.split_off(..part.requests).unwrap_or_default(),
                samples: gathered.next(part.samples, part.kind),
            });
            runs.add(&of_one_run[0].run, batches, milliseconds());
        }
    }

    /// Empties it, and gives the memory of a rush back.
    fn clear(&mut self) {
        if self.bytes() > KEPT {
            *self = Self::default();
        }
        self.parts.clear();
        self.requests.clear();
        self.gathered.clear();
    }
}

/// The time in milliseconds since 1970.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        registry::Bounds,
        run::{Event, RequestKey, RunName},
        statistics::testing::observation,
    };

    fn recorder() -> (Arc<Runs>, Recorder) {
        let runs = Arc::new(Runs::new(Bounds { runs: 10, bytes: usize::MAX }));
        (Arc::clone(&runs), Recorder::start(runs, Duration::from_millis(50)).unwrap())
    }

    fn name(run: &str) -> RunName {
        run.parse().unwrap()
    }

    /// Leaves a request with so many samples, which have two members each.
    fn leave(runs: &Runs, recorder: &Recorder, run: &str, step: u64, samples: usize) {
        let origin = Origin { step: Some(step), task: None, model: "m".parse().unwrap(), probabilities: false };
        let request = Request { unscored: 1, ..Request::whole(RequestKey::of(&format!("{run}-{step}"))) };
        let rewards = || (0..samples).map(|number| number as f64 + step as f64);
        let members = rewards().flat_map(|reward| [reward as f32, -reward as f32]);
        let run = runs.claim(&name(run), None, || 1).run;
        recorder.record(run, origin, request, rewards().map(observation), members);
    }

    #[test]
    fn a_reader_that_flushes_is_told_of_all_that_was_left_before() {
        let (runs, recorder) = recorder();
        for step in 0..100 {
            leave(&runs, &recorder, "a", step, 3);
            leave(&runs, &recorder, if step % 3 == 0 { "a" } else { "b" }, step, 1);
            recorder.flush();
            let told = runs.report(&name("a")).unwrap();
            assert_eq!(told.samples, (step + 1) * 3 + step / 3 + 1);
            let step_told = told.models[0].steps.last().unwrap();
            let twice = u64::from(step % 3 == 0);
            assert!(step_told.samples >= 3 + twice && step_told.unscored > twice, "{step_told:?}");
            assert!(
                step_told.preference.is_none_or(|preference| preference.mean.is_some()),
                "members stay in their places"
            );
            let matched = runs.find(&name("a"), &format!("a-{step}"), 0).unwrap();
            assert_eq!((matched.step, matched.reward), (step, step as f64));
        }
        assert_eq!((runs.totals().0, recorder.dropped()), (400, 0));
    }

    #[test]
    fn who_listens_hears_of_steps_that_nobody_flushes() {
        let (runs, recorder) = recorder();
        leave(&runs, &recorder, "a", 0, 1);
        let (_, mut future) = runs.listen(&name("a"), 0).unwrap();
        let mut heard = || -> Arc<Event> { future.blocking_recv().unwrap() };
        leave(&runs, &recorder, "a", 1, 1);
        assert_eq!(heard().id, 1);
        leave(&runs, &recorder, "a", 2, 1);
        assert_eq!(heard().id, 2);
        leave(&runs, &recorder, "a", 3, 1);
        drop(recorder);
        assert_eq!(heard().id, 3, "the rest is folded at the end");
    }

    #[test]
    fn who_fills_the_buffer_folds_it() {
        let runs = Arc::new(Runs::new(Bounds { runs: 10, bytes: usize::MAX }));
        let recorder = Recorder::start(Arc::clone(&runs), Duration::MAX).unwrap();
        for _ in 0..1000 {
            leave(&runs, &recorder, "a", 0, 32);
        }
        let told = runs.report(&name("a")).unwrap().samples;
        assert!((31_000..=32_000).contains(&told), "{told}");
    }

    #[test]
    fn what_finds_the_buffer_full_is_counted() {
        let (runs, recorder) = recorder();
        let folding = lock(&recorder.shared.folding);
        leave(&runs, &recorder, "a", 0, MOST / 16);
        leave(&runs, &recorder, "a", 1, 5);
        assert_eq!(recorder.dropped(), 6);
        drop(folding);
        recorder.flush();
        leave(&runs, &recorder, "a", 2, 0);
        recorder.flush();
        assert_eq!(runs.report(&name("a")).unwrap().models[0].steps.len(), 2);
    }
}
