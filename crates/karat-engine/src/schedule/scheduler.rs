//! The driver: admits jobs, lends them to worker threads, and hands results back.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use karat_rules::domain::TokenizedInput;
use karat_runtime::{Cancellation, Executor};
use tokio::sync::oneshot;

use super::{
    Completed, Job, JobError, JobId, Limits, Planned, Planner, Policy, Refusal, Ticket, Waiting, admission::Load,
    memory::MemoryBound, rate::Rate, worker,
};
use crate::telemetry::ModelMetrics;

/// The sessions of one model.
pub struct Executors {
    /// Sessions that run side by side, as a rule one thread each; at least one.
    pub crowd: Vec<Box<dyn Executor>>,
    /// A session on all cores, for when too few jobs wait to keep the crowd busy.
    pub lone: Option<Box<dyn Executor>>,
}

/// Why a scheduler can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to run on.
    #[error("a scheduler needs at least one executor")]
    NoExecutor,
    /// The system gave no thread.
    #[error("a worker thread can't start: {0}")]
    Thread(#[from] io::Error),
}

/// Runs the jobs of one model.
///
/// Dropping it stops it at once, as [`Self::stop`] does; [`Self::shutdown`] finishes everything first.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Which sessions a worker thread belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Crowd,
    Lone,
}

/// What belongs to a job while it waits and runs.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) input: Arc<TokenizedInput>,
    pub(super) reply: oneshot::Sender<Result<Completed, JobError>>,
    pub(super) submitted: Instant,
}

/// A batch on its way through a worker.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) jobs: Vec<Planned<Pending>>,
    pub(super) cancellation: Cancellation,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    crowd_wanted: Condvar,
    lone_wanted: Condvar,
    policy: Policy,
    limits: Limits,
    crowd_size: usize,
    has_lone: bool,
    pub(super) metrics: ModelMetrics,
}

#[derive(Debug)]
struct State {
    planner: Planner<Pending>,
    crowd_running: usize,
    crowd_idle: usize,
    lone_running: bool,
    running_tokens: usize,
    /// The running pass of each job whose ticket is still held.
    running: HashMap<JobId, Arc<Listeners>>,
    rate: Rate,
    memory: MemoryBound,
    stopping: bool,
}

/// Who still waits for a running pass.
#[derive(Debug)]
struct Listeners {
    left: Mutex<usize>,
    cancellation: Cancellation,
}

impl Scheduler {
    /// Starts one thread for each executor.
    ///
    /// # Errors
    /// When there is no executor, or the system gives no thread.
    pub fn start(
        executors: Executors,
        policy: Policy,
        limits: Limits,
        metrics: ModelMetrics,
    ) -> Result<Self, StartError> {
        let Executors { crowd, lone } = executors;
        if crowd.is_empty() {
            return Err(StartError::NoExecutor);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                planner: Planner::new(policy).with_texts(|pending: &Pending| pending.input.ids()),
                crowd_running: 0,
                crowd_idle: 0,
                lone_running: false,
                running_tokens: 0,
                running: HashMap::new(),
                rate: Rate::assumed(limits.tokens_per_second),
                memory: MemoryBound::new(policy.budget),
                stopping: false,
            }),
            crowd_wanted: Condvar::new(),
            lone_wanted: Condvar::new(),
            policy,
            limits,
            crowd_size: crowd.len(),
            has_lone: lone.is_some(),
            metrics,
        });
        // Made before the threads, so that they are stopped if one of them can't start.
        let scheduler = Self { shared, threads: Mutex::new(Vec::new()) };
        let crowd = crowd
            .into_iter()
            .enumerate()
            .map(|(index, executor)| (format!("karat-run-{index}"), executor, Role::Crowd));
        let lone = lone.map(|executor| ("karat-run-lone".to_owned(), executor, Role::Lone));
        for (name, executor, role) in crowd.chain(lone) {
            let shared = Arc::clone(&scheduler.shared);
            let thread = thread::Builder::new().name(name).spawn(move || worker::work(&shared, executor, role))?;
            scheduler.threads().push(thread);
        }
        Ok(scheduler)
    }

    /// Admits all of `jobs` or none. The tickets come in the order of the jobs.
    ///
    /// # Errors
    /// When too much waits, a deadline can't be met, or the scheduler is shutting down.
    pub fn submit(&self, jobs: Vec<Job>) -> Result<Vec<Ticket>, Refusal> {
        let now = Instant::now();
        let shared = &self.shared;
        let mut state = shared.lock();
        shared.drop_expired(&mut state, now);
        let load = Load { planner: &state.planner, running_tokens: state.running_tokens, rate: &state.rate };
        let admitted = if state.stopping { Err(Refusal::Stopped) } else { load.admit(&shared.limits, &jobs, now) };
        if let Err(refusal) = admitted {
            shared.metrics.refused(jobs.len());
            return Err(refusal);
        }
        let tickets = jobs
            .into_iter()
            .map(|job| {
                let (reply, result) = oneshot::channel();
                let waiting = Waiting {
                    tokens: job.input.len(),
                    priority: job.priority,
                    deadline: job.deadline,
                    payload: Pending { input: job.input, reply, submitted: now },
                };
                let id = state.planner.push(waiting, now);
                Ticket::new(result, id, Arc::downgrade(shared))
            })
            .collect();
        shared.changed(&state);
        Ok(tickets)
    }

    /// How many jobs and tokens wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.planner.len(), state.planner.tokens())
    }

    /// How long a job of normal priority would wait now, judged by the measured rate; `None` before the first pass.
    #[must_use]
    pub fn estimated_wait(&self) -> Option<Duration> {
        let state = self.shared.lock();
        state.rate.time_for(state.planner.tokens() + state.running_tokens)
    }

    /// Takes no more jobs, finishes all that wait and run, and ends the threads. Blocks until then.
    pub fn shutdown(&self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
        }
        self.shared.wake_all();
        let threads: Vec<_> = self.threads().drain(..).collect();
        for thread in threads {
            // A worker catches panics of its executor; should it die all the same, the others still drain.
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }

    /// Stops at once: what waits fails with [`JobError::Stopped`], what runs is cancelled. Doesn't block.
    pub fn stop(&self) {
        let (abandoned, running) = {
            let mut state = self.shared.lock();
            state.stopping = true;
            (state.planner.drain(), state.running.drain().map(|(_, pass)| pass).collect::<Vec<_>>())
        };
        self.shared.wake_all();
        for job in abandoned {
            reply(job.job.payload, Err(JobError::Stopped));
        }
        for pass in running {
            pass.cancellation.cancel();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        self.crowd_wanted.notify_all();
        self.lone_wanted.notify_all();
    }

    /// Wakes whoever has something to do, after jobs came or went or a pass ended.
    fn changed(&self, state: &State) {
        self.metrics.queue(state.planner.len(), state.planner.tokens());
        if state.planner.is_empty() {
            if state.stopping {
                self.wake_all();
            }
        } else if state.lone_running {
            // Its end will call again.
        } else if self.lone_is_better(state) {
            self.lone_wanted.notify_one();
        } else if state.planner.len() >= state.crowd_idle {
            self.crowd_wanted.notify_all();
        } else {
            for _ in 0..state.planner.len() {
                self.crowd_wanted.notify_one();
            }
        }
    }

    fn lone_is_better(&self, state: &State) -> bool {
        self.has_lone && state.crowd_running == 0 && state.planner.len() <= self.policy.lone_jobs
    }

    /// Blocks until there is something to run; `None` when the worker should end.
    pub(super) fn next(&self, role: Role) -> Option<Pass> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            self.drop_expired(&mut state, now);
            if state.planner.is_empty() && state.stopping {
                return None;
            }
            let may_start = !state.lone_running && self.lone_is_better(&state) == (role == Role::Lone);
            if may_start {
                let free = match role {
                    Role::Crowd => self.crowd_size - state.crowd_running,
                    Role::Lone => 1,
                };
                if let Some(jobs) = state.planner.plan(now, free) {
                    return Some(self.begin(&mut state, jobs, role));
                }
            }
            state = self.sleep(state, role, now);
        }
    }

    fn begin(&self, state: &mut State, jobs: Vec<Planned<Pending>>, role: Role) -> Pass {
        match role {
            Role::Crowd => state.crowd_running += 1,
            Role::Lone => state.lone_running = true,
        }
        let cancellation = Cancellation::new();
        let listeners = Arc::new(Listeners { left: Mutex::new(jobs.len()), cancellation: cancellation.clone() });
        for planned in &jobs {
            state.running_tokens += planned.job.tokens;
            state.running.insert(planned.id, Arc::clone(&listeners));
        }
        self.metrics.queue(state.planner.len(), state.planner.tokens());
        Pass { jobs, cancellation }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>, role: Role, now: Instant) -> MutexGuard<'a, State> {
        let wanted = match role {
            Role::Crowd => {
                state.crowd_idle += 1;
                &self.crowd_wanted
            }
            Role::Lone => &self.lone_wanted,
        };
        let mut state = match state.planner.next_wakeup() {
            None => wanted.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(wakeup) => {
                let timeout = wakeup.saturating_duration_since(now);
                wanted.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if role == Role::Crowd {
            state.crowd_idle -= 1;
        }
        state
    }

    fn drop_expired(&self, state: &mut State, now: Instant) {
        let expired = state.planner.expire(now);
        if expired.is_empty() {
            return;
        }
        self.metrics.expired(expired.len());
        self.changed(state);
        for planned in expired {
            reply(planned.job.payload, Err(JobError::Expired));
        }
    }

    /// Books a pass as ended; `took` is `None` when it gave no results.
    pub(super) fn end(&self, role: Role, ids: &[JobId], tokens: usize, took: Option<Duration>) {
        let mut state = self.lock();
        let workers = match role {
            Role::Crowd => {
                state.crowd_running -= 1;
                self.crowd_size
            }
            Role::Lone => {
                state.lone_running = false;
                1
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
    pub(super) fn ran_out_of_memory(&self, positions: usize) {
        let mut state = self.lock();
        if let Some(bound) = state.memory.ran_out(positions) {
            state.planner.set_budget(bound);
            tracing::warn!(positions, bound, "out of memory: batches are smaller from now on");
        }
    }

    /// A pass of so many positions had enough memory.
    pub(super) fn fitted_into_memory(&self, positions: usize) {
        let mut state = self.lock();
        if let Some(bound) = state.memory.fitted(positions) {
            state.planner.set_budget(bound);
        }
    }

    /// The holder of the job's ticket has gone.
    pub(super) fn abandon(&self, id: JobId) {
        let listeners = {
            let mut state = self.lock();
            if state.planner.remove(id).is_some() {
                self.metrics.cancelled(1);
                self.changed(&state);
                return;
            }
            state.running.remove(&id)
        };
        if let Some(listeners) = listeners {
            self.metrics.cancelled(1);
            let mut left = listeners.left.lock().unwrap_or_else(PoisonError::into_inner);
            *left -= 1;
            if *left == 0 {
                listeners.cancellation.cancel();
            }
        }
    }
}

/// Answers a job. That nobody listens any more is no error: the ticket was dropped.
pub(super) fn reply(job: Pending, result: Result<Completed, JobError>) {
    drop(job.reply.send(result));
}

#[cfg(test)]
mod tests;
