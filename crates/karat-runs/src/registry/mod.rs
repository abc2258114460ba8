//! All runs of a server: the latest ones, within bounds, and who listens to them.

mod chosen;
mod recorder;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use karat_rules::domain::ModelName;
use tokio::sync::broadcast;

pub use chosen::{Chosen, ConfigError};
pub use recorder::{Record, Recorder};

use crate::run::{Batch, Beside, Config, Event, Matched, Run, RunName, RunReport, RunSummary};

/// How many events wait for a listener that is slow; it is told when it missed some.
const WAITING: usize = 256;

/// Bounds on all runs together. Those that were heard of longest ago go first.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most runs.
    pub runs: usize,
    /// The most memory, in bytes.
    pub bytes: usize,
}

/// All runs of a server.
#[derive(Debug)]
pub struct Runs {
    bounds: Bounds,
    inner: Mutex<Inner>,
    /// Whether any run wants more than statistics, so that all others ask nobody.
    any_chooses: AtomicBool,
    samples: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    runs: HashMap<RunName, Entry>,
    clock: u64,
    bytes: usize,
    /// Runs that were let go and that a file may still hold.
    gone: Vec<RunName>,
}

#[derive(Debug)]
struct Entry {
    run: Run,
    touched: u64,
    bytes: usize,
    /// Whether it changed since it was last written down.
    changed: bool,
    listeners: Option<broadcast::Sender<Arc<Event>>>,
}

/// Whose a run is, told to who wants to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The name of the key that it was made with; none of one that everybody may use.
    pub owner: Option<String>,
    /// Whether it was made now.
    pub is_new: bool,
}

impl Runs {
    /// No runs yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            inner: Mutex::default(),
            any_chooses: AtomicBool::new(false),
            samples: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// A panic while a run was changed leaves figures that are off by a sample, which is no reason to stop all of them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a run. What comes late, for one that went meanwhile, does nothing: made anew, the run would be
    /// everybody's.
    fn change(&self, name: &RunName, change: impl FnOnce(&mut Run) -> Vec<Event>) {
        self.change_in(&mut self.lock(), name, change);
    }

    fn change_in(&self, inner: &mut Inner, name: &RunName, change: impl FnOnce(&mut Run) -> Vec<Event>) {
        inner.clock += 1;
        let Some(entry) = inner.runs.get_mut(name) else { return };
        entry.touched = inner.clock;
        entry.changed = true;
        let events = change(&mut entry.run);
        let fresh = entry.bytes == 0;
        if let Some(listeners) = &entry.listeners {
            for event in &events {
                // Without a listener there is nobody to tell.
                let _ = listeners.send(Arc::new(event.clone()));
            }
        }
        // What a run takes is reckoned anew when a step is over: in between it changes little.
        if fresh || !events.is_empty() {
            let bytes = entry.run.bytes();
            let before = std::mem::replace(&mut entry.bytes, bytes);
            inner.bytes = inner.bytes + bytes - before;
            self.evict(inner, name);
        }
    }

    /// Makes a run for a key, or for everybody, where there is none of that name.
    fn make(&self, inner: &mut Inner, name: &RunName, owner: Option<&str>, now: u64) {
        let run = || Run::new(name.clone(), now).of(owner.map(str::to_owned));
        inner.runs.entry(name.clone()).or_insert_with(|| Entry::new(run()));
        self.change_in(inner, name, |_| Vec::new());
    }

    fn evict(&self, inner: &mut Inner, but: &RunName) {
        while inner.runs.len() > self.bounds.runs.max(1) || inner.bytes > self.bounds.bytes {
            let oldest = inner.runs.iter().filter(|(name, _)| *name != but).min_by_key(|(_, entry)| entry.touched);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            inner.forget(&name);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a run for a key, or for everybody, where there is none of that name; whose it is.
    pub fn claim(&self, name: &RunName, owner: Option<&str>, now: u64) -> Claim {
        let mut inner = self.lock();
        if let Some(entry) = inner.runs.get(name) {
            return Claim { owner: entry.run.owner().map(str::to_owned), is_new: false };
        }
        self.make(&mut inner, name, owner, now);
        Claim { owner: owner.map(str::to_owned), is_new: true }
    }

    /// The name of the key that a run was made with, if it is one's; none of a run that isn't there.
    #[must_use]
    pub fn owner(&self, name: &RunName) -> Option<Option<String>> {
        self.lock().runs.get(name).map(|entry| entry.run.owner().map(str::to_owned))
    }

    /// Takes samples in, of a run that was claimed.
    pub fn add(&self, batch: &Batch, now: u64) {
        self.samples.fetch_add(batch.samples.len() as u64, Ordering::Relaxed);
        self.change(&batch.run, |run| run.add(batch, now));
    }

    /// Counts samples that got no reward.
    pub fn add_unscored(&self, name: &RunName, model: &ModelName, step: Option<u64>, samples: u64, now: u64) {
        self.change(name, |run| {
            run.add_unscored(model, step, samples, now);
            Vec::new()
        });
    }

    /// Counts samples that a second judge didn't score.
    pub fn add_unjudged(&self, name: &RunName, samples: u64) {
        self.change(name, |run| {
            run.add_unjudged(samples);
            Vec::new()
        });
    }

    /// Lays a number beside a reward.
    pub fn add_beside(&self, name: &RunName, what: Beside, matched: &Matched, other: f64, now: u64) {
        self.change(name, |run| {
            run.add_beside(what, matched, other, now);
            Vec::new()
        });
    }

    /// Lays outcomes beside their rewards, the last of them of that number in the store, and reads the run's signals.
    pub fn add_outcomes(&self, name: &RunName, outcomes: &[(Matched, f64)], last: u64, now: u64) {
        self.change(name, |run| {
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
        self.lock().runs.get(name)?.run.find(request, index)
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
                let found = self.lock().runs.get(other).map(|entry| entry.run.clone());
                Some(
                    found
                        .filter(|run| run.summary().samples > 0)
                        .ok_or_else(|| ConfigError::NoReference(other.clone()))?,
                )
            }
        };
        let mut inner = self.lock();
        self.make(&mut inner, name, owner, now);
        self.change_in(&mut inner, name, |run| {
            if let Some(reference) = reference.filter(|_| run.config().reference != config.reference) {
                run.take_reference(&reference);
            }
            run.configure(config, now);
            Vec::new()
        });
        drop(inner);
        self.look_for_choices();
        Ok(())
    }

    fn look_for_choices(&self) {
        let chooses = |run: &Run| run.config().judge.is_some() || run.config().probe.is_some();
        let any = self.lock().runs.values().any(|entry| chooses(&entry.run));
        self.any_chooses.store(any, Ordering::Relaxed);
    }

    /// What samples of a run are chosen for beside their score; none where nothing is asked.
    #[must_use]
    pub fn chosen(&self, name: &RunName) -> Option<Chosen> {
        if !self.any_chooses.load(Ordering::Relaxed) {
            return None;
        }
        let inner = self.lock();
        let config = inner.runs.get(name)?.run.config();
        (config.judge.is_some() || config.probe.is_some()).then(|| Chosen { config: config.clone() })
    }

    /// How often a run saw each sample, by its hash; none of a run that isn't there.
    #[must_use]
    pub fn times(&self, name: &RunName, hashes: &[u64]) -> Option<Vec<u32>> {
        let inner = self.lock();
        let run = &inner.runs.get(name)?.run;
        Some(hashes.iter().map(|hash| run.times(*hash)).collect())
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
        let run = self.lock().runs.get(name)?.run.clone();
        run.percentiles(model, task, rewards)
    }

    /// Every run in a line, of those whose owner `shows` takes, the one heard of last first.
    #[must_use]
    pub fn list(&self, shows: impl Fn(Option<&str>) -> bool) -> Vec<RunSummary> {
        let inner = self.lock();
        let mut entries: Vec<&Entry> = inner.runs.values().filter(|entry| shows(entry.run.owner())).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.touched));
        entries.iter().map(|entry| entry.run.summary()).collect()
    }

    /// How many signals of a run fire; none of a run that isn't there yet.
    #[must_use]
    pub fn firing(&self, name: &RunName) -> Option<usize> {
        Some(self.lock().runs.get(name)?.run.summary().firing.len())
    }

    /// All that is known of a run.
    #[must_use]
    pub fn report(&self, name: &RunName) -> Option<RunReport> {
        // What takes time is done without the lock, which scoring's records wait for.
        let run = self.lock().runs.get(name)?.run.clone();
        Some(run.report())
    }

    /// Copies of the runs that were heard of last, the latest first.
    #[must_use]
    pub fn latest(&self, most: usize) -> Vec<Run> {
        let inner = self.lock();
        let mut entries: Vec<&Entry> = inner.runs.values().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.touched));
        entries.iter().take(most).map(|entry| entry.run.clone()).collect()
    }

    /// The events of a run from now on, and the signals after the event of that number; none of a run that isn't there.
    #[must_use]
    pub fn listen(&self, name: &RunName, after: u64) -> Option<(Vec<Event>, broadcast::Receiver<Arc<Event>>)> {
        let mut inner = self.lock();
        let entry = inner.runs.get_mut(name)?;
        let listeners = entry.listeners.get_or_insert_with(|| broadcast::channel(WAITING).0);
        Some((entry.run.events_after(after), listeners.subscribe()))
    }

    /// Forgets a run; whether there was one.
    pub fn forget(&self, name: &RunName) -> bool {
        let forgotten = self.lock().forget(name);
        self.look_for_choices();
        forgotten
    }

    /// Takes in a run that was written down.
    pub fn restore(&self, run: Run) {
        let mut inner = self.lock();
        inner.clock += 1;
        let touched = inner.clock;
        let name = run.name().clone();
        let bytes = run.bytes();
        inner.bytes += bytes;
        inner.runs.insert(name.clone(), Entry { touched, bytes, changed: false, ..Entry::new(run) });
        self.evict(&mut inner, &name);
        drop(inner);
        self.look_for_choices();
    }

    /// Copies of the runs that changed since this was last asked, and the names of those that were let go.
    #[must_use]
    pub fn changes(&self) -> (Vec<Run>, Vec<RunName>) {
        let mut inner = self.lock();
        let gone = std::mem::take(&mut inner.gone);
        let changed =
            inner.runs.values_mut().filter_map(|entry| std::mem::take(&mut entry.changed).then(|| entry.run.clone()));
        (changed.collect(), gone)
    }

    /// How many runs there are, and how many bytes they take.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.runs.len(), inner.bytes)
    }

    /// How many samples were taken in, and how many runs were let go for want of room.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.samples.load(Ordering::Relaxed), self.evicted.load(Ordering::Relaxed))
    }
}

impl Inner {
    fn forget(&mut self, name: &RunName) -> bool {
        let Some(entry) = self.runs.remove(name) else { return false };
        self.bytes -= entry.bytes;
        self.gone.push(name.clone());
        true
    }
}

impl Entry {
    fn new(run: Run) -> Self {
        Self { run, touched: 0, bytes: 0, changed: true, listeners: None }
    }
}

#[cfg(test)]
mod tests;
