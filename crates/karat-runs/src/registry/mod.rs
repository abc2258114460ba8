//! All runs of a server: the latest ones, within bounds, and who listens to them.

mod buffer;
mod chosen;
mod recorder;
mod watched;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use karat_rules::domain::ModelName;
use thread_local::ThreadLocal;
use tokio::sync::broadcast;

pub use chosen::{Chosen, ConfigError};
pub use recorder::Recorder;
pub use watched::ClaimedRun;

use watched::Watched;

use crate::run::{Batch, Beside, Config, Event, Matched, Run, RunName, RunReport, RunSummary};

/// Bounds on all runs together. Those that were heard of longest ago go first.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most runs.
    pub runs: usize,
    /// The most memory, in bytes.
    pub bytes: usize,
}

/// All runs of a server. Which there are and what each of them holds is locked apart, the former always first or alone, so
/// that a request never waits for statistics to learn whose a run is.
#[derive(Debug)]
pub struct Runs {
    bounds: Bounds,
    index: Mutex<Index>,
    /// The run that each thread claimed last, which the next request nearly always claims again; none that was let go. Changed
    /// with the index locked.
    claimed: ThreadLocal<CachePadded<LastClaim>>,
    clock: AtomicU64,
    /// Whether any run wants more than statistics, so that all others ask nobody. Every request reads it, so it lies apart
    /// from what others write.
    any_chooses: CachePadded<AtomicBool>,
    samples: AtomicU64,
    evicted: AtomicU64,
}

type LastClaim = Mutex<Option<ClaimedRun>>;

fn last_claim(claimed: &LastClaim) -> MutexGuard<'_, Option<ClaimedRun>> {
    // It is put in and taken out whole.
    claimed.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Index {
    runs: HashMap<RunName, Entry>,
    bytes: usize,
    /// Runs that were let go and that a file may still hold.
    gone: Vec<RunName>,
}

#[derive(Debug)]
struct Entry {
    run: Arc<Watched>,
    /// The memory that it took when it was last reckoned.
    bytes: usize,
}

/// A run, told to who wants to use it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The run.
    pub run: ClaimedRun,
    /// Whether it was made now.
    pub is_new: bool,
}

impl Runs {
    /// No runs yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            index: Mutex::default(),
            claimed: ThreadLocal::new(),
            clock: AtomicU64::new(0),
            any_chooses: CachePadded::new(AtomicBool::new(false)),
            samples: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Runs are put in and taken out whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find_run(&self, name: &RunName) -> Option<Arc<Watched>> {
        self.index().runs.get(name).map(|entry| Arc::clone(&entry.run))
    }

    /// Every run, the one heard of last first.
    fn all(&self) -> Vec<Arc<Watched>> {
        let mut runs = self.index().all();
        runs.sort_by_cached_key(|run| std::cmp::Reverse(run.touched.load(Ordering::Relaxed)));
        runs
    }

    fn touch(&self, run: &Watched) {
        run.touched.store(self.clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Does something with a run, and reckons anew what it takes.
    fn change(&self, run: &Arc<Watched>, change: impl FnOnce(&mut Run, bool) -> Vec<Event>) {
        self.touch(run);
        let bytes = run.change(change);
        let mut index = self.index();
        // One that was let go meanwhile takes nothing.
        let Some(entry) = index.runs.get_mut(&run.name).filter(|entry| Arc::ptr_eq(&entry.run, run)) else { return };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        index.bytes = index.bytes + bytes - before;
        self.evict(&mut index, &run.name);
    }

    /// The same with the run of a name. What comes late, for one that went meanwhile, does nothing: made anew, the run
    /// would be everybody's.
    fn change_named(&self, name: &RunName, change: impl FnOnce(&mut Run) -> Vec<Event>) {
        if let Some(run) = self.find_run(name) {
            self.change(&run, |run, _| change(run));
        }
    }

    fn insert(&self, index: &mut Index, run: Run, changed: bool) -> Arc<Watched> {
        let (name, bytes) = (run.name().clone(), run.bytes());
        let run = Arc::new(Watched::new(run, changed));
        self.touch(&run);
        index.bytes += bytes;
        if let Some(replaced) = index.runs.insert(name.clone(), Entry { run: Arc::clone(&run), bytes }) {
            index.bytes -= replaced.bytes;
            self.claim_no_more(&name);
        }
        self.evict(index, &name);
        run
    }

    fn evict(&self, index: &mut Index, but: &RunName) {
        while index.runs.len() > self.bounds.runs.max(1) || index.bytes > self.bounds.bytes {
            let others = index.runs.iter().filter(|(name, _)| *name != but);
            let oldest = others.min_by_key(|(_, entry)| entry.run.touched.load(Ordering::Relaxed));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            self.let_go(index, &name);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a run for a key, or for everybody, where there is none of that name. `now` is asked for a new one.
    pub fn claim(&self, name: &RunName, owner: Option<&str>, now: impl FnOnce() -> u64) -> Claim {
        let claimed = self.claimed.get_or_default();
        if let Some(run) = last_claim(claimed).as_ref().filter(|run| run.run().name == *name) {
            return Claim { run: run.clone(), is_new: false };
        }
        let mut index = self.index();
        let (run, is_new) = match index.runs.get(name) {
            Some(entry) => (Arc::clone(&entry.run), false),
            None => {
                let run = Run::new(name.clone(), now()).of(owner.map(str::to_owned));
                (self.insert(&mut index, run, true), true)
            }
        };
        let run = ClaimedRun::new(run);
        *last_claim(claimed) = Some(run.clone());
        Claim { run, is_new }
    }

    /// Takes a run out; whether there was one.
    fn let_go(&self, index: &mut Index, name: &RunName) -> bool {
        let was_there = index.forget(name);
        self.claim_no_more(name);
        was_there
    }

    fn claim_no_more(&self, name: &RunName) {
        for claimed in &self.claimed {
            last_claim(claimed).take_if(|run| run.run().name == *name);
        }
    }

    /// The name of the key that a run was made with, if it is one's; none of a run that isn't there.
    #[must_use]
    pub fn owner(&self, name: &RunName) -> Option<Option<String>> {
        Some(self.find_run(name)?.owner.clone())
    }

    /// Takes the samples of some requests of one run in.
    pub fn add<'a>(&self, run: &ClaimedRun, batches: impl Iterator<Item = Batch<'a>>, now: u64) {
        self.change(run.run(), |run, heard| {
            let mut happened = Vec::new();
            for batch in batches {
                self.samples.fetch_add(batch.samples.count() as u64, Ordering::Relaxed);
                happened.extend(run.add(&batch, heard, now));
            }
            happened.extend(run.catch_up(now));
            happened
        });
    }

    /// Counts samples that a second judge didn't score.
    pub fn add_unjudged(&self, name: &RunName, samples: u64) {
        self.change_named(name, |run| {
            run.add_unjudged(samples);
            Vec::new()
        });
    }

    /// Lays a number beside a reward.
    pub fn add_beside(&self, name: &RunName, what: Beside, matched: &Matched, other: f64, now: u64) {
        self.change_named(name, |run| {
            run.add_beside(what, matched, other, now);
            Vec::new()
        });
    }

    /// Lays outcomes beside their rewards, the last of them of that number in the store, and reads the run's signals.
    pub fn add_outcomes(&self, name: &RunName, outcomes: &[(Matched, f64)], last: u64, now: u64) {
        self.change_named(name, |run| {
            for (matched, value) in outcomes {
                run.add_beside(Beside::Outcome, matched, *value, now);
            }
            run.know_outcomes(last);
            run.read_signals(now)
        });
    }

    /// The reward that a request of a run got for a sample, if it is among the latest.
    #[must_use]
    pub fn find(&self, name: &RunName, request: &str, index: usize) -> Option<Matched> {
        self.find_run(name)?.lock().run.find(request, index)
    }

    /// Asks other things of a run, which is made for a key, or for everybody, where there is none.
    ///
    /// # Errors
    /// When a share is none, or the run to compare with has no rewards.
    pub fn configure(&self, name: &RunName, config: Config, owner: Option<&str>, now: u64) -> Result<(), ConfigError> {
        config.check().map_err(ConfigError::Invalid)?;
        let reference = match &config.reference {
            None => None,
            Some(other) => {
                let found = self.find_run(other).map(|run| run.copy()).filter(|run| run.summary().samples > 0);
                Some(found.ok_or_else(|| ConfigError::NoReference(other.clone()))?)
            }
        };
        self.change(self.claim(name, owner, || now).run.run(), |run, _| {
            if let Some(reference) = reference.filter(|_| run.config().reference != config.reference) {
                run.take_reference(&reference);
            }
            run.configure(config, now);
            Vec::new()
        });
        self.look_for_choices();
        Ok(())
    }

    fn look_for_choices(&self) {
        let any = self.all().iter().any(|run| run.lock().run.config().asks_for_samples());
        self.any_chooses.store(any, Ordering::Relaxed);
    }

    /// What samples of a run are chosen for beside their score; none where nothing is asked.
    #[must_use]
    pub fn chosen(&self, name: &RunName) -> Option<Chosen> {
        if !self.any_chooses.load(Ordering::Relaxed) {
            return None;
        }
        let run = self.find_run(name)?;
        let state = run.lock();
        let config = state.run.config();
        config.asks_for_samples().then(|| Chosen { config: config.clone() })
    }

    /// How often a run saw each sample, by its hash; none of a run that isn't there.
    #[must_use]
    pub fn times(&self, name: &RunName, hashes: &[u64]) -> Option<Vec<u32>> {
        let run = self.find_run(name)?;
        let state = run.lock();
        Some(hashes.iter().map(|hash| state.run.times(*hash)).collect())
    }

    /// The share of a model's rewards in a run, or in one of its tasks, that lie below each value; none where it gave none.
    #[must_use]
    pub fn percentiles(
        &self,
        name: &RunName,
        model: &ModelName,
        task: Option<&RunName>,
        rewards: &[f64],
    ) -> Option<Vec<f64>> {
        self.find_run(name)?.copy().percentiles(model, task, rewards)
    }

    /// Every run in a line, of those whose owner `shows` takes, the one heard of last first.
    #[must_use]
    pub fn list(&self, shows: impl Fn(Option<&str>) -> bool) -> Vec<RunSummary> {
        let shown = self.all().into_iter().filter(|run| shows(run.owner.as_deref()));
        shown.map(|run| run.lock().run.summary()).collect()
    }

    /// How many signals of a run fire; none of a run that isn't there yet.
    #[must_use]
    pub fn firing(&self, name: &RunName) -> Option<usize> {
        Some(self.find_run(name)?.firing.load(Ordering::Relaxed))
    }

    /// All that is known of a run.
    #[must_use]
    pub fn report(&self, name: &RunName) -> Option<RunReport> {
        // What takes time is done without the lock, which what is recorded waits for.
        Some(self.find_run(name)?.copy().report())
    }

    /// Copies of the runs that were heard of last, the latest first.
    #[must_use]
    pub fn latest(&self, most: usize) -> Vec<Run> {
        self.all().iter().take(most).map(|run| run.copy()).collect()
    }

    /// The events of a run from now on, and the signals after the event of that number; none of a run that isn't there.
    #[must_use]
    pub fn listen(&self, name: &RunName, after: u64) -> Option<(Vec<Event>, broadcast::Receiver<Arc<Event>>)> {
        Some(self.find_run(name)?.listen(after))
    }

    /// Forgets a run; whether there was one.
    pub fn forget(&self, name: &RunName) -> bool {
        let forgotten = self.let_go(&mut self.index(), name);
        self.look_for_choices();
        forgotten
    }

    /// Takes in a run that was written down.
    pub fn restore(&self, run: Run) {
        self.any_chooses.fetch_or(run.config().asks_for_samples(), Ordering::Relaxed);
        self.insert(&mut self.index(), run, false);
    }

    /// Copies of the runs that changed since this was last asked, and the names of those that were let go.
    #[must_use]
    pub fn changes(&self) -> (Vec<Run>, Vec<RunName>) {
        let mut index = self.index();
        // Both at once: a name that is let go and taken anew is first forgotten and then written.
        let (gone, all) = (std::mem::take(&mut index.gone), index.all());
        drop(index);
        let changed = all.into_iter().filter(|run| run.changed.swap(false, Ordering::Acquire));
        (changed.map(|run| run.copy()).collect(), gone)
    }

    /// How many runs there are, and how many bytes they take.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let index = self.index();
        (index.runs.len(), index.bytes)
    }

    /// How many samples were taken in, and how many runs were let go for want of room.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.samples.load(Ordering::Relaxed), self.evicted.load(Ordering::Relaxed))
    }
}

impl Index {
    fn all(&self) -> Vec<Arc<Watched>> {
        self.runs.values().map(|entry| Arc::clone(&entry.run)).collect()
    }

    fn forget(&mut self, name: &RunName) -> bool {
        let Some(entry) = self.runs.remove(name) else { return false };
        self.bytes -= entry.bytes;
        self.gone.push(name.clone());
        entry.run.end();
        true
    }
}

#[cfg(test)]
mod tests;
