//! One run of the registry, with who listens to it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::broadcast;

use crate::run::{Event, Run, RunName};

/// How many events wait for a listener that is slow; it is told when it missed some.
const WAITING: usize = 256;

/// A run that was claimed. What is recorded under it goes to this run and to no later one of the same name, which may be
/// another key's.
#[derive(Debug, Clone)]
#[expect(
    clippy::redundant_allocation,
    reason = "a count in the run itself would go from core to core with every request"
)]
pub struct ClaimedRun(Arc<Arc<Watched>>);

impl ClaimedRun {
    pub(super) fn new(run: Arc<Watched>) -> Self {
        Self(Arc::new(run))
    }

    pub(super) fn run(&self) -> &Arc<Watched> {
        &self.0
    }

    /// Whether both are the same run.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.run(), other.run())
    }

    /// The name of the key that it was made with; none of one that everybody may use.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.0.owner.as_deref()
    }
}

/// A run and who listens to it. Whose it is, is known without waiting for what is being recorded of it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) name: RunName,
    pub(super) owner: Option<String>,
    /// When it was last heard of, by the registry's clock.
    pub(super) touched: AtomicU64,
    /// Whether it changed since it was last written down.
    pub(super) changed: AtomicBool,
    /// How many of its signals fire.
    pub(super) firing: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) run: Run,
    listeners: Option<broadcast::Sender<Arc<Event>>>,
}

impl Watched {
    pub(super) fn new(run: Run, changed: bool) -> Self {
        Self {
            name: run.name().clone(),
            owner: run.owner().map(str::to_owned),
            touched: AtomicU64::new(0),
            changed: AtomicBool::new(changed),
            firing: AtomicUsize::new(run.firing()),
            state: Mutex::new(State { run, listeners: None }),
        }
    }

    /// A panic while a run was changed leaves figures that are off by a sample, which is no reason to stop all of them.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the run as it is now.
    pub(super) fn copy(&self) -> Run {
        self.lock().run.clone()
    }

    /// Does something with the run and tells its listeners, in the order in which it happened; the memory that the run
    /// takes then. `change` is told whether anybody listens.
    pub(super) fn change(&self, change: impl FnOnce(&mut Run, bool) -> Vec<Event>) -> usize {
        let mut state = self.lock();
        let State { run, listeners } = &mut *state;
        // Who writes it down takes this back before it looks.
        self.changed.store(true, Ordering::Release);
        let listeners = listeners.as_ref().filter(|listeners| listeners.receiver_count() > 0);
        for event in change(run, listeners.is_some()) {
            if let Some(listeners) = listeners {
                // Without a listener there is nobody to tell.
                let _ = listeners.send(Arc::new(event));
            }
        }
        self.firing.store(run.firing(), Ordering::Relaxed);
        run.bytes()
    }

    /// The signals after the event of that number, and all events from now on.
    pub(super) fn listen(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Arc<Event>>) {
        let mut state = self.lock();
        let listeners = state.listeners.get_or_insert_with(|| broadcast::channel(WAITING).0);
        let future = listeners.subscribe();
        (state.run.events_after(after), future)
    }

    /// Ends the streams of all who listen.
    pub(super) fn end(&self) {
        self.lock().listeners = None;
    }
}
