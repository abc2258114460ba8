//! Takes what was scored off the hands of who answers clients, for next to nothing.
//!
//! A request leaves its samples' numbers at the end of its thread's own buffer: nothing is hashed, and hardly anything
//! allocated, for it, and no core waits for what another one wrote. Requests of one step that follow each other share all
//! else that they leave, and are taken in as one. All that waits is folded into its runs together, and by whoever comes
//! first:
//! - the request that fills its thread's buffer up to a mark, about the hundredth of 32 samples; handing its thread's samples
//!   to another core would cost more than folding them where they were written does;
//! - a thread of its own, which is woken by the first request after a rest, and folds what gathered for a while in which
//!   nobody else did; so it wakes a few times a second, however many requests there are, and never while nothing is scored;
//! - a reader, who [flushes](Recorder::flush) first, and so is told of all that was acknowledged before.
//!
//! No request waits for another that folds. What finds the buffer full is left out of the statistics, and counted.

use std::{
    io, mem,
    num::NonZeroUsize,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{self, AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_utils::CachePadded;
use thread_local::ThreadLocal;

use super::{
    ClaimedRun, Runs,
    buffer::{self, Buffer},
};
use crate::{
    run::{OriginRef, Request},
    statistics::Observation,
};

/// From how many entries on of one thread all that waits is folded at once.
const MARK: usize = 3000;
/// The most entries of all threads that wait for that together, where all are as busy: whoever folds them is held up.
const MARK_TOGETHER: usize = 8 * MARK;
/// The most bytes of all threads that wait, but for those of each one's last request, while others are being folded.
const MOST: usize = 16 << 20;

/// The buffers' entrance.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    runs: Arc<Runs>,
    /// What waits, by the thread on which it was left.
    waiting: ThreadLocal<CachePadded<Mutex<Buffer>>>,
    /// How many parts began on all threads.
    parts: CachePadded<AtomicU64>,
    rest: CachePadded<Rest>,
    /// Whether the recorder is gone.
    ended: Mutex<bool>,
    more: Condvar,
    /// What is being folded, or else empty buffers. Who holds them folds; everything before is folded once he has let go.
    folding: Mutex<Vec<Buffer>>,
    /// One thread's share of [`MARK_TOGETHER`], [`MARK`] at most.
    mark: usize,
    /// One thread's share of [`MOST`].
    most: usize,
}

/// What requests and the recorder's thread tell each other. Every request reads it, and hardly any writes it.
#[derive(Debug, Default)]
struct Rest {
    /// Whether the thread has to be woken.
    asleep: AtomicBool,
    /// Whether somebody folded while the thread lets requests gather.
    folded: AtomicBool,
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
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shared = Arc::new(Shared {
            mark: MARK.min(MARK_TOGETHER / threads),
            most: MOST / threads,
            runs,
            waiting: ThreadLocal::new(),
            parts: CachePadded::default(),
            rest: CachePadded::default(),
            ended: Mutex::default(),
            more: Condvar::new(),
            folding: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("karat-runs".to_owned()).spawn(move || theirs.keep_folding(gather))?;
        Ok(Self { shared, dropped: AtomicU64::new(0) })
    }

    /// Leaves a request's samples to be recorded, with the members' scores where those are told apart, as many for each.
    /// Where that fills the thread's buffer and nobody folds, all is folded here.
    pub fn record(
        &self,
        run: ClaimedRun,
        origin: OriginRef<'_>,
        request: Request,
        samples: impl Iterator<Item = Observation> + Clone,
        members: Option<impl Iterator<Item = f32>>,
    ) {
        let shared = &*self.shared;
        let mut waiting = lock(shared.waiting.get().unwrap_or_else(|| shared.first_of_thread()));
        if waiting.entries() >= shared.mark && waiting.bytes() >= shared.most {
            drop(waiting);
            self.dropped.fetch_add(samples.count() as u64 + request.unscored, Ordering::Relaxed);
            return;
        }
        waiting.push(run, origin, request, samples, members, || shared.parts.fetch_add(1, Ordering::Relaxed));
        let is_full = waiting.entries() >= shared.mark;
        drop(waiting);
        shared.wake();
        if is_full {
            shared.fold_unless_busy();
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
        *lock(&self.shared.ended) = true;
        self.shared.more.notify_one();
    }
}

impl Shared {
    /// The buffer of a thread that has left nothing yet.
    #[cold]
    fn first_of_thread(&self) -> &CachePadded<Mutex<Buffer>> {
        let waiting = self.waiting.get_or_default();
        // As for the fence of the recorder's thread: either it sees this buffer, or this request that it sleeps.
        atomic::fence(Ordering::SeqCst);
        waiting
    }

    /// Wakes the thread, if it sleeps. Whether it does is looked at after a buffer was locked, which the thread does after
    /// it said so: one of both sees what the other did.
    fn wake(&self) {
        if self.rest.asleep.load(Ordering::Relaxed) && self.rest.asleep.swap(false, Ordering::Relaxed) {
            // It holds this until it waits.
            drop(lock(&self.ended));
            self.more.notify_one();
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.iter().all(|waiting| lock(waiting).is_empty())
    }

    /// The buffers of all threads at one moment: else one's next step might be folded before another's last one.
    fn lock_all(&self) -> Vec<MutexGuard<'_, Buffer>> {
        loop {
            let all: Vec<_> = self.waiting.iter().map(|waiting| lock(waiting)).collect();
            // A thread whose first request came meanwhile may have been passed over.
            if self.waiting.iter().count() == all.len() {
                return all;
            }
        }
    }

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

    fn fold_with(&self, mut folding: MutexGuard<'_, Vec<Buffer>>) {
        let mut waiting = self.lock_all();
        let buffers = waiting.len().max(folding.len());
        folding.resize_with(buffers, Buffer::default);
        waiting.iter_mut().zip(&mut *folding).for_each(|(waiting, folding)| mem::swap(&mut **waiting, folding));
        drop(waiting);
        self.rest.folded.store(true, Ordering::Relaxed);
        buffer::fold(&folding, &self.runs, milliseconds());
        folding.iter_mut().for_each(Buffer::clear);
    }

    fn keep_folding(&self, gather: Duration) {
        loop {
            self.rest.asleep.store(true, Ordering::Relaxed);
            atomic::fence(Ordering::SeqCst);
            let mut ended = lock(&self.ended);
            if self.is_empty() {
                let rests = |ended: &mut bool| self.rest.asleep.load(Ordering::Relaxed) && !*ended;
                ended = self.more.wait_while(ended, rests).unwrap_or_else(PoisonError::into_inner);
            }
            self.rest.asleep.store(false, Ordering::Relaxed);
            self.rest.folded.store(false, Ordering::Relaxed);
            let gathered = self.more.wait_timeout_while(ended, gather, |ended| !*ended);
            let (ended, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            let ended = *ended;
            // While requests fill their buffers again and again, what is left of the last ones can wait.
            if ended || !self.rest.folded.load(Ordering::Relaxed) {
                self.fold();
            }
            if ended {
                return;
            }
        }
    }
}

/// The time in milliseconds since 1970.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{
        registry::Bounds,
        run::{Event, EventKind, RequestKey, RunName},
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
        let origin = OriginRef { step: Some(step), task: None, model: &"m".parse().unwrap(), probabilities: false };
        let request = Request { unscored: 1, ..Request::whole(RequestKey::of(&format!("{run}-{step}"))) };
        let rewards = || (0..samples).map(|number| number as f64 + step as f64);
        let members = rewards().flat_map(|reward| [reward as f32, -reward as f32]);
        let run = runs.claim(&name(run), None, || 1).run;
        recorder.record(run, origin, request, rewards().map(observation), Some(members));
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

    /// The steps that a listener is told of, with how many samples each had, when three threads left as many of each of 30
    /// steps. Meanwhile somebody reads again and again, or nobody does.
    fn steps_of_three_threads(is_read: bool) -> Vec<(u64, u64)> {
        let runs = Arc::new(Runs::new(Bounds { runs: 10, bytes: usize::MAX }));
        let recorder = Recorder::start(Arc::clone(&runs), Duration::MAX).unwrap();
        runs.claim(&name("a"), None, || 1);
        let (_, mut heard) = runs.listen(&name("a"), 0).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while is_read && !done.load(Ordering::Relaxed) {
                    recorder.flush();
                }
            });
            let others = [(); 3].map(|()| {
                let (send, receive) = mpsc::channel::<(u64, mpsc::Sender<()>)>();
                let (runs, recorder) = (&runs, &recorder);
                scope.spawn(move || receive.iter().for_each(|(step, _done)| leave(runs, recorder, "a", step, 40)));
                send
            });
            for step in 0..30 {
                // Each leaves some of every step, and another one the first of it.
                for turn in 0..3 {
                    let (done, left) = mpsc::channel();
                    others[(step as usize + turn) % 3].send((step, done)).unwrap();
                    assert!(left.recv().is_err(), "it is told of by going");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        recorder.flush();
        let ended = std::iter::from_fn(|| match &heard.try_recv().ok()?.kind {
            EventKind::Step { step } => Some(Some((step.first_step, step.samples))),
            EventKind::Signal { .. } => Some(None),
        });
        ended.flatten().collect()
    }

    #[test]
    fn steps_are_folded_in_their_order_whichever_threads_they_came_from() {
        let whole: Vec<(u64, u64)> = (0..29).map(|step| (step, 120)).collect();
        assert_eq!(steps_of_three_threads(false), whole);
        assert_eq!(steps_of_three_threads(true), whole);
    }

    #[test]
    fn who_fills_the_buffer_folds_it() {
        let runs = Arc::new(Runs::new(Bounds { runs: 10, bytes: usize::MAX }));
        let recorder = Recorder::start(Arc::clone(&runs), Duration::MAX).unwrap();
        for _ in 0..1000 {
            leave(&runs, &recorder, "a", 0, 32);
        }
        let told = runs.report(&name("a")).unwrap().samples;
        assert!(told > 32_000 - MARK as u64, "{told}");
    }

    #[test]
    fn what_finds_the_buffer_full_is_counted() {
        let (runs, recorder) = recorder();
        let folding = lock(&recorder.shared.folding);
        leave(&runs, &recorder, "a", 0, recorder.shared.most / 16);
        leave(&runs, &recorder, "a", 1, 5);
        assert_eq!(recorder.dropped(), 6);
        drop(folding);
        recorder.flush();
        leave(&runs, &recorder, "a", 2, 0);
        recorder.flush();
        assert_eq!(runs.report(&name("a")).unwrap().models[0].steps.len(), 2);
    }
}
