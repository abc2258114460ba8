//! What ends: passes, the patience of who waits, and deadlines.

use std::time::{Duration, Instant};

use super::{Dispatch, Place, Role, jobs::Jobs};
use crate::{
    schedule::{JobError, JobId},
    workers::Gated,
};

impl Dispatch {
    /// Books a pass as ended; `took` is `None` when it gave no results.
    pub(in crate::schedule) fn end(&self, place: Place, ids: &[JobId], tokens: usize, took: Option<Duration>) {
        let mut state = self.gate.lock();
        let (workers, took) = match place.role {
            Role::Parallel => {
                state.parallel_running -= 1;
                let had = state.replicas.end(place.replica, tokens, took.unwrap_or_default(), Instant::now());
                (state.sessions.parallel.min(state.replicas.count()), took.map(|_| had))
            }
            Role::Single => {
                state.single_running = false;
                (1, took)
            }
        };
        state.running_tokens -= tokens;
        for id in ids {
            state.running.remove(id);
        }
        if let Some(took) = took {
            state.rate.observe(tokens, took, workers);
        }
        self.changed(&state);
    }

    /// A pass of so many positions ran out of memory: later batches are smaller.
    pub(in crate::schedule) fn ran_out_of_memory(&self, positions: usize) {
        let mut state = self.gate.lock();
        if let Some(bound) = state.memory.ran_out(positions) {
            state.planner.set_budget(bound);
            tracing::warn!(positions, bound, "out of memory: batches are smaller from now on");
        }
    }

    /// A pass of so many positions had enough memory.
    pub(in crate::schedule) fn fitted_into_memory(&self, positions: usize) {
        let mut state = self.gate.lock();
        if let Some(bound) = state.memory.fitted(positions) {
            state.planner.set_budget(bound);
        }
    }

    /// The holder of the job's ticket has gone.
    pub(in crate::schedule) fn abandon(&self, id: JobId) {
        let listeners = {
            let mut state = self.gate.lock();
            if state.planner.remove(id).is_some() {
                self.metrics.cancelled(1);
                self.changed(&state);
                return;
            }
            state.running.remove(&id)
        };
        if let Some(listeners) = listeners {
            self.metrics.cancelled(1);
            listeners.leave();
        }
    }

    /// Fails the jobs whose deadline has passed.
    pub(super) fn drop_expired(&self, state: &mut Gated<Jobs>, now: Instant) {
        let expired = state.planner.expire(now);
        if expired.is_empty() {
            return;
        }
        self.metrics.expired(expired.len());
        self.changed(state);
        for planned in expired {
            planned.job.payload.reply(Err(JobError::Expired));
        }
    }
}
