//! Who takes the next batch: a worker waits until there is something to do that suits its session.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    Dispatch, Place, Role,
    jobs::{Jobs, Pass, Pending},
};
use crate::{schedule::loan::Lending, workers::Gated};

/// What a worker does next.
#[derive(Debug)]
pub(in crate::schedule) enum Task {
    /// It runs a batch.
    Run(Pass),
    /// It lends its session to somebody who measures it.
    Lend(Lending),
}

impl Dispatch {
    /// Blocks until there is something to do; `None` when the worker should end.
    pub(in crate::schedule) fn next(&self, worker: Place) -> Option<Task> {
        let mut state = self.gate.lock();
        loop {
            let role = state.sessions.role(worker.role)?;
            let now = Instant::now();
            self.drop_expired(&mut state, now);
            if state.planner.is_empty() && !state.is_open() {
                return None;
            }
            if let Some(lending) = &state.lending {
                return Some(Task::Lend(lending.clone()));
            }
            let may_start = !state.single_running && state.suit_single() == (role == Role::Single);
            let place = Place { role, ..worker };
            if may_start && state.may_begin(place) {
                let free = match role {
                    Role::Parallel => state.sessions.parallel - state.parallel_running,
                    Role::Single => 1,
                };
                let elsewhere = |job: &Pending| job.home.is_some_and(|home| home != place.replica);
                if let Some(jobs) = state.planner.plan_here(now, free, elsewhere) {
                    let pass = state.begin(jobs, place);
                    self.metrics.queue(state.planner.len(), state.planner.tokens());
                    return Some(Task::Run(pass));
                }
            }
            state = self.sleep(state, role, now);
        }
    }

    /// Sleeps until something changes or a deadline passes.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, Gated<Jobs>>,
        role: Role,
        now: Instant,
    ) -> MutexGuard<'a, Gated<Jobs>> {
        let wanted = match role {
            Role::Parallel => {
                state.parallel_idle += 1;
                &self.parallel_wanted
            }
            Role::Single => &self.single_wanted,
        };
        let mut state = match state.planner.next_wakeup() {
            None => wanted.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(wakeup) => {
                let timeout = wakeup.saturating_duration_since(now);
                wanted.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if role == Role::Parallel {
            state.parallel_idle -= 1;
        }
        state
    }

    /// Wakes whoever has something to do, after jobs came or went or a pass ended.
    pub(super) fn changed(&self, state: &Gated<Jobs>) {
        self.metrics.queue(state.planner.len(), state.planner.tokens());
        if state.planner.is_empty() {
            if !state.is_open() {
                self.notify_all();
            }
        } else if state.single_running {
            // Its end will call again.
        } else if state.suit_single() {
            self.single_wanted.notify_one();
        } else if state.planner.len() >= state.parallel_idle || state.replicas.are_shared() {
            self.parallel_wanted.notify_all();
        } else {
            for _ in 0..state.planner.len() {
                self.parallel_wanted.notify_one();
            }
        }
    }

    /// Wakes every worker.
    pub(super) fn notify_all(&self) {
        self.parallel_wanted.notify_all();
        self.single_wanted.notify_all();
    }
}
