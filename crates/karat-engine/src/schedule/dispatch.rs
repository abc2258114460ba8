//! What the threads of a scheduler share: the jobs that wait and run, and who takes the next batch.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use karat_rules::domain::TokenizedInput;
use karat_runtime::{Cancellation, MemoryBound};
use tokio::sync::oneshot;

use super::{
    Completed, Job, JobError, JobId, Planned, Planner, Policy, QueueLimits, QueueRefusal, Ticket, WaitingJob,
    admission::Load,
    loan::{Lending, Loan},
    rate::Rate,
    replicas::{Homes, Replicas},
};
use crate::{
    telemetry::ModelMetrics,
    workers::{Gate, Gated, Work},
};

/// Which sessions a worker thread belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Parallel,
    Single,
}

/// Where a worker thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) role: Role,
    /// The number of its device among those of its role.
    pub(super) replica: usize,
}

/// What belongs to a job while it waits and runs.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) input: Arc<TokenizedInput>,
    pub(super) reply: oneshot::Sender<Result<Completed, JobError>>,
    pub(super) submitted: Instant,
    /// The device that knows what it begins with.
    home: Option<usize>,
}

/// A batch on its way through a worker.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) jobs: Vec<Planned<Pending>>,
    pub(super) cancellation: Cancellation,
    /// Where it runs, and what its session counts as.
    pub(super) place: Place,
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Task {
    /// It runs a batch.
    Run(Pass),
    /// It lends its session to somebody who measures it.
    Lend(Lending),
}

/// The queue and the workers of one model.
#[derive(Debug)]
pub(super) struct Dispatch {
    gate: Gate<Jobs>,
    parallel_wanted: Condvar,
    single_wanted: Condvar,
    limits: QueueLimits,
    homes: Homes,
    pub(super) metrics: ModelMetrics,
}

/// The jobs that wait and those that run.
#[derive(Debug)]
pub(super) struct Jobs {
    planner: Planner<Pending>,
    parallel_running: usize,
    parallel_idle: usize,
    single_running: bool,
    replicas: Replicas,
    running_tokens: usize,
    /// The running pass of each job whose ticket is still held.
    running: HashMap<JobId, Arc<Listeners>>,
    rate: Rate,
    memory: MemoryBound,
    policy: Policy,
    sessions: Sessions,
    /// Set while somebody borrows the sessions, which is only while nothing waits.
    lending: Option<Lending>,
}

/// Who still waits for a running pass.
#[derive(Debug)]
pub(super) struct Listeners {
    left: Mutex<usize>,
    cancellation: Cancellation,
}

/// How many sessions there are of each kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sessions {
    pub(super) parallel: usize,
    pub(super) single: bool,
    /// Whose sessions run side by side: those of one thread, or the one on all cores, which is then the only one.
    pub(super) crew: Role,
}

impl Sessions {
    /// How many there are.
    fn all(self) -> usize {
        self.parallel + usize::from(self.single)
    }

    /// What a worker's session counts as; `None` where it isn't wanted any more.
    fn role(self, worker: Role) -> Option<Role> {
        if worker == self.crew {
            Some(Role::Parallel)
        } else {
            Some(worker).filter(|worker| *worker == Role::Single && self.single)
        }
    }
}

/// What was given up when the scheduler was stopped.
pub(super) struct Abandoned {
    waiting: Vec<Planned<Pending>>,
    running: Vec<Arc<Listeners>>,
}

impl Dispatch {
    /// An empty queue in front of so many sessions.
    pub(super) fn new(
        sessions: Sessions,
        replicas: Replicas,
        policy: Policy,
        limits: QueueLimits,
        metrics: ModelMetrics,
    ) -> Self {
        Self {
            homes: replicas.homes(),
            gate: Gate::new(Jobs {
                planner: Planner::new(policy).with_texts(|pending: &Pending| pending.input.ids()),
                parallel_running: 0,
                parallel_idle: 0,
                single_running: false,
                replicas,
                running_tokens: 0,
                running: HashMap::new(),
                rate: Rate::assumed(limits.tokens_per_second),
                memory: MemoryBound::new(policy.budget),
                policy,
                sessions,
                lending: None,
            }),
            parallel_wanted: Condvar::new(),
            single_wanted: Condvar::new(),
            limits,
            metrics,
        }
    }

    /// Admits all of `jobs` or none. The tickets come in the order of the jobs.
    ///
    /// # Errors
    /// When too much waits, a deadline can't be met, or the scheduler is shutting down.
    pub(super) fn submit(self: &Arc<Self>, jobs: Vec<Job>) -> Result<Vec<Ticket>, QueueRefusal> {
        let homes: Vec<Option<usize>> = jobs.iter().map(|job| self.homes.of(job.input.ids())).collect();
        let now = Instant::now();
        let mut state = self.gate.lock();
        self.drop_expired(&mut state, now);
        let load = Load { planner: &state.planner, running_tokens: state.running_tokens, rate: &state.rate };
        let admitted = if state.is_open() { load.admit(&self.limits, &jobs, now) } else { Err(QueueRefusal::Stopped) };
        if let Err(refusal) = admitted {
            self.metrics.refused(jobs.len());
            return Err(refusal);
        }
        let lending = state.lending.take();
        let mut request_tokens: usize = 0;
        let tickets = jobs
            .into_iter()
            .zip(homes)
            .map(|(job, home)| {
                let (reply, result) = oneshot::channel();
                request_tokens = request_tokens.saturating_add(job.input.len());
                let tokens = job.input.len();
                let waiting = WaitingJob {
                    request_tokens,
                    client: job.client,
                    priority: job.priority,
                    deadline: job.deadline,
                    bound: job.admission.bound(&self.limits),
                    ..WaitingJob::new(tokens, Pending { input: job.input, reply, submitted: now, home })
                };
                let id = state.planner.push(waiting, now);
                Ticket::new(result, id, Arc::downgrade(self))
            })
            .collect();
        self.changed(&state);
        drop(state);
        interrupt(lending);
        Ok(tickets)
    }

    /// Borrows all sessions from their workers, if nothing waits and nothing runs; `None` too where a job arrives before
    /// all are there. Jobs that arrive later cancel the loan.
    pub(super) fn borrow(self: &Arc<Self>) -> Option<Loan> {
        let asked = {
            let mut state = self.gate.lock();
            let busy = state.parallel_running > 0 || state.single_running || !state.planner.is_empty();
            if !state.is_open() || busy || state.lending.is_some() {
                return None;
            }
            let (lending, asked) = Loan::begin(self, state.sessions.all());
            state.lending = Some(lending);
            asked
        };
        self.notify_all();
        asked.collect()
    }

    /// Ends a loan.
    pub(super) fn lent_back(&self) {
        self.gate.lock().lending = None;
    }

    /// Goes on with another policy and other sessions of those that there are; none of them runs.
    pub(super) fn adopt(&self, policy: Policy, sessions: Sessions, tokens_per_second: Option<f64>) {
        let mut state = self.gate.lock();
        state.policy = policy;
        state.sessions = sessions;
        state.memory = MemoryBound::new(policy.budget);
        state.planner.set_policy(policy);
        state.rate = Rate::assumed(tokens_per_second);
    }

    /// What sessions there are.
    pub(super) fn sessions(&self) -> Sessions {
        self.gate.lock().sessions
    }

    /// How many jobs and tokens wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.gate.lock();
        (state.planner.len(), state.planner.tokens())
    }

    /// Wakes whoever has something to do, after jobs came or went or a pass ended.
    fn changed(&self, state: &Gated<Jobs>) {
        self.metrics.queue(state.planner.len(), state.planner.tokens());
        if state.planner.is_empty() {
            if !state.is_open() {
                self.notify_all();
            }
        } else if state.single_running {
            // Its end will call again.
        } else if self.single_is_better(state) {
            self.single_wanted.notify_one();
        } else if state.planner.len() >= state.parallel_idle || state.replicas.are_shared() {
            self.parallel_wanted.notify_all();
        } else {
            for _ in 0..state.planner.len() {
                self.parallel_wanted.notify_one();
            }
        }
    }

    fn single_is_better(&self, state: &Gated<Jobs>) -> bool {
        state.sessions.single && state.parallel_running == 0 && state.planner.len() <= state.policy.single_jobs
    }

    fn notify_all(&self) {
        self.parallel_wanted.notify_all();
        self.single_wanted.notify_all();
    }

    /// Blocks until there is something to do; `None` when the worker should end.
    pub(super) fn next(&self, worker: Place) -> Option<Task> {
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
            let may_start = !state.single_running && self.single_is_better(&state) == (role == Role::Single);
            let place = Place { role, ..worker };
            if may_start && state.may_begin(place) {
                let free = match role {
                    Role::Parallel => state.sessions.parallel - state.parallel_running,
                    Role::Single => 1,
                };
                let elsewhere = |job: &Pending| job.home.is_some_and(|home| home != place.replica);
                if let Some(jobs) = state.planner.plan_here(now, free, elsewhere) {
                    return Some(Task::Run(self.begin(&mut state, jobs, place)));
                }
            }
            state = self.sleep(state, role, now);
        }
    }

    fn begin(&self, state: &mut Gated<Jobs>, jobs: Vec<Planned<Pending>>, place: Place) -> Pass {
        match place.role {
            Role::Parallel => {
                state.parallel_running += 1;
                state.replicas.begin(place.replica, jobs.iter().map(|planned| planned.job.tokens).sum());
            }
            Role::Single => state.single_running = true,
        }
        let cancellation = Cancellation::new();
        let listeners = Arc::new(Listeners { left: Mutex::new(jobs.len()), cancellation: cancellation.clone() });
        for planned in &jobs {
            state.running_tokens += planned.job.tokens;
            state.running.insert(planned.id, Arc::clone(&listeners));
        }
        self.metrics.queue(state.planner.len(), state.planner.tokens());
        Pass { jobs, cancellation, place }
    }

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

    fn drop_expired(&self, state: &mut Gated<Jobs>, now: Instant) {
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
    pub(super) fn end(&self, place: Place, ids: &[JobId], tokens: usize, took: Option<Duration>) {
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
    pub(super) fn ran_out_of_memory(&self, positions: usize) {
        let mut state = self.gate.lock();
        if let Some(bound) = state.memory.ran_out(positions) {
            state.planner.set_budget(bound);
            tracing::warn!(positions, bound, "out of memory: batches are smaller from now on");
        }
    }

    /// A pass of so many positions had enough memory.
    pub(super) fn fitted_into_memory(&self, positions: usize) {
        let mut state = self.gate.lock();
        if let Some(bound) = state.memory.fitted(positions) {
            state.planner.set_budget(bound);
        }
    }

    /// The holder of the job's ticket has gone.
    pub(super) fn abandon(&self, id: JobId) {
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
            let mut left = listeners.left.lock().unwrap_or_else(PoisonError::into_inner);
            *left -= 1;
            if *left == 0 {
                listeners.cancellation.cancel();
            }
        }
    }
}

impl Jobs {
    /// Whether a worker may take a batch for its device now.
    fn may_begin(&self, place: Place) -> bool {
        place.role == Role::Single || self.replicas.may_begin(place.replica, self.planner.tokens(), self.memory.bound())
    }
}

impl Work for Dispatch {
    type Queue = Jobs;
    type Abandoned = Abandoned;

    fn gate(&self) -> &Gate<Jobs> {
        &self.gate
    }

    fn wake_all(&self) {
        // Who measures the sessions gives them back first.
        let lending = self.gate.lock().lending.take();
        interrupt(lending);
        self.notify_all();
    }

    fn give_up(&self, jobs: &mut Jobs) -> Abandoned {
        Abandoned { waiting: jobs.planner.drain(), running: jobs.running.drain().map(|(_, pass)| pass).collect() }
    }

    fn fail(&self, abandoned: Abandoned) {
        for planned in abandoned.waiting {
            reply(planned.job.payload, Err(JobError::Stopped));
        }
        for pass in abandoned.running {
            pass.cancellation.cancel();
        }
    }
}

fn interrupt(lending: Option<Lending>) {
    lending.into_iter().for_each(|lending| lending.interrupt());
}

/// Answers a job. That nobody listens any more is no error: the ticket was dropped.
pub(super) fn reply(job: Pending, result: Result<Completed, JobError>) {
    drop(job.reply.send(result));
}
