//! Stopping a forward pass from another thread.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

type Hook = Box<dyn Fn() + Send>;

/// Asks a running forward pass to stop. Clones share one state; once used it stays used.
#[derive(Clone, Default)]
pub struct Cancellation {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cancelled: AtomicBool,
    hooks: Mutex<Hooks>,
}

/// The ways of stopping what runs: rows of one batch may run side by side.
#[derive(Default)]
struct Hooks {
    by_number: BTreeMap<u64, Hook>,
    next: u64,
}

impl State {
    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cancellation {
    /// One that was not used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the pass to stop; returns at once.
    pub fn cancel(&self) {
        self.state.cancelled.store(true, Ordering::Release);
        self.state.hooks().by_number.values().for_each(|hook| hook());
    }

    /// Whether [`Self::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state.cancelled.load(Ordering::Acquire)
    }

    /// Calls `hook` on cancellation for as long as the registration lives; at once when it happened already.
    ///
    /// For executors: a runtime that doesn't poll [`Self::is_cancelled`] hangs its own way of stopping in here.
    #[must_use = "the hook is removed when the registration is dropped"]
    pub fn on_cancel(&self, hook: impl Fn() + Send + 'static) -> Registration<'_> {
        let mut hooks = self.state.hooks();
        // Checked under the lock: a cancellation that came before found no hook, one that comes after will.
        if self.is_cancelled() {
            hook();
        }
        let number = hooks.next;
        hooks.next += 1;
        hooks.by_number.insert(number, Box::new(hook));
        Registration { cancellation: self, number }
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

/// Keeps a hook of [`Cancellation::on_cancel`] in place. Once dropped, the hook doesn't run any more.
pub struct Registration<'a> {
    cancellation: &'a Cancellation,
    number: u64,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.cancellation.state.hooks().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_hook_runs_before_during_but_not_after() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = |calls: &Arc<AtomicUsize>| {
            let calls = Arc::clone(calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };

        let cancellation = Cancellation::new();
        drop(cancellation.on_cancel(count(&calls)));
        cancellation.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 0, "the registration was gone");

        let late = cancellation.on_cancel(count(&calls));
        assert_eq!(calls.load(Ordering::SeqCst), 1, "cancelled already");
        drop(late);

        let cancellation = Cancellation::new();
        let registration = cancellation.on_cancel(count(&calls));
        cancellation.clone().cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        drop(registration);
        assert!(cancellation.is_cancelled());
    }

    #[test]
    fn each_pass_that_runs_is_stopped_and_none_that_ended() {
        let calls = Arc::new(AtomicUsize::new(0));
        let cancellation = Cancellation::new();
        let hook = |worth: usize| {
            let calls = Arc::clone(&calls);
            cancellation.on_cancel(move || {
                calls.fetch_add(worth, Ordering::SeqCst);
            })
        };
        let (_first, second, _third) = (hook(1), hook(10), hook(100));
        drop(second);
        cancellation.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 101);
    }
}
