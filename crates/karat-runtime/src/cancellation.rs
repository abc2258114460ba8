//! Stopping a forward pass from another thread.

use std::{
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
    hook: Mutex<Option<Hook>>,
}

impl State {
    fn hook(&self) -> MutexGuard<'_, Option<Hook>> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(hook) = self.state.hook().as_ref() {
            hook();
        }
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
    pub(crate) fn on_cancel(&self, hook: impl Fn() + Send + 'static) -> Registration<'_> {
        let mut slot = self.state.hook();
        // Checked under the lock: a cancellation that came before found no hook, one that comes after will.
        if self.is_cancelled() {
            hook();
        }
        *slot = Some(Box::new(hook));
        Registration { cancellation: self }
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

/// Keeps a hook of [`Cancellation::on_cancel`] in place. Once dropped, the hook doesn't run any more.
pub(crate) struct Registration<'a> {
    cancellation: &'a Cancellation,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        *self.cancellation.state.hook() = None;
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
}
