//! What the threads of a scheduler share: its queue. Jobs come in here; which of them a worker runs next stands in `next`,
//! and how passes, patience and deadlines end in `end`.

mod end;
mod jobs;
mod next;
mod sessions;

use std::{
    sync::{Arc, Condvar},
    time::Instant,
};

use karat_runtime::MemoryBound;
use tokio::sync::oneshot;

pub(super) use jobs::{Pass, Pending};
pub(super) use next::Task;
pub(super) use sessions::{Place, Role, Sessions};

use self::jobs::{Abandoned, Jobs};
use super::{
    Job, Policy, QueueLimits, QueueRefusal, Ticket, WaitingJob,
    admission::Load,
    loan::{Lending, Loan},
    rate::Rate,
    replicas::{Homes, Replicas},
};
use crate::{
    telemetry::ModelMetrics,
    workers::{Gate, Work},
};

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
            gate: Gate::new(Jobs::none(sessions, replicas, policy, &limits)),
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
        jobs.give_up()
    }

    fn fail(&self, abandoned: Abandoned) {
        abandoned.fail();
    }
}

fn interrupt(lending: Option<Lending>) {
    lending.into_iter().for_each(|lending| lending.interrupt());
}
