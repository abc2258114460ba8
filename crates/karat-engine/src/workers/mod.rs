//! Threads and their one life: open, closed to what is new, ended.
//!
//! What a model runs, it runs on threads that take from a queue. Whatever waits in that queue, it ends in one of two
//! ways: [`Roster::drain`] finishes what was admitted, [`Roster::stop`] fails what waits and cancels what runs. Both
//! are written here once, for every kind of queue, and reach every thread that was started, so that none outlives a
//! server that was told to end.
//!
//! ```text
//! Roster ─▶ Workers ─▶ threads ─▶ Gate: the queue, and whether it is open
//!  all       of one
//! ```

mod gate;
mod roster;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

pub(crate) use gate::{Gate, Gated};
pub(crate) use roster::{Roster, Stage};

/// What the threads of one queue share: the queue behind its gate, and how to reach those who work it off.
pub(crate) trait Work: Send + Sync + 'static {
    /// What waits, and what is known of what runs.
    type Queue: Send;
    /// What was given up before it was over.
    type Abandoned;

    /// The queue.
    fn gate(&self) -> &Gate<Self::Queue>;

    /// Wakes every thread that waits for something to do. Where the gate is closed and nothing waits, it has to end.
    fn wake_all(&self);

    /// Takes out everything that waits, and whatever it takes to cancel what runs. Called under the gate's lock.
    fn give_up(&self, queue: &mut Self::Queue) -> Self::Abandoned;

    /// Tells those who wait for it, and cancels what runs. Called without the lock.
    fn fail(&self, abandoned: Self::Abandoned);
}

/// The threads of one queue. Dropping this stops them at once, without waiting until they have ended.
pub(crate) struct Workers<W: Work> {
    team: Arc<Team<W>>,
}

impl<W: Work> Workers<W> {
    /// No threads yet.
    pub(crate) fn new(work: W) -> Self {
        Self { team: Arc::new(Team { work: Arc::new(work), threads: Mutex::default() }) }
    }

    /// What the threads share.
    pub(crate) fn work(&self) -> &Arc<W> {
        &self.team.work
    }

    /// Starts one more thread, which has to end where [`Work::wake_all`] says.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn spawn(&self, name: &str, run: impl FnOnce(&Arc<W>) + Send + 'static) -> io::Result<()> {
        let work = Arc::clone(&self.team.work);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&work))?;
        self.team.threads().push(thread);
        Ok(())
    }

    /// Lets a roster end these threads with all others of its own.
    pub(crate) fn enlist(&self, roster: &Roster, stage: Stage) {
        roster.enlist(&(Arc::clone(&self.team) as Arc<dyn Ends>), stage);
    }
}

impl<W: Work> Drop for Workers<W> {
    fn drop(&mut self) {
        self.team.stop();
    }
}

impl<W: Work> fmt::Debug for Workers<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.team.threads().len()).finish_non_exhaustive()
    }
}

struct Team<W> {
    work: Arc<W>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<W> Team<W> {
    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Handles are pushed and taken whole.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How threads end, whatever they work off.
trait Ends: Send + Sync {
    /// Takes nothing more; what was admitted is finished. Doesn't block.
    fn close(&self);

    /// Takes nothing more, fails what waits, and cancels what runs. Doesn't block.
    fn stop(&self);

    /// Blocks until the threads have ended; the queue has to be closed.
    fn join(&self);
}

impl<W: Work> Ends for Team<W> {
    fn close(&self) {
        self.work.gate().lock().close();
        self.work.wake_all();
    }

    fn stop(&self) {
        let abandoned = {
            let mut queue = self.work.gate().lock();
            queue.close();
            self.work.give_up(&mut queue)
        };
        self.work.wake_all();
        self.work.fail(abandoned);
    }

    fn join(&self) {
        // Taken first: whoever stops the threads meanwhile must not wait for the lock.
        let threads: Vec<_> = self.threads().drain(..).collect();
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            // Panics of executors are caught on the thread; should one die all the same, the others still drain.
            if thread.join().is_err() {
                tracing::error!(thread = name, "a worker thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
