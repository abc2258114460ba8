//! The jobs that wait and those that run, and what is known of each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use karat_rules::domain::TokenizedInput;
use karat_runtime::{Cancellation, MemoryBound};
use tokio::sync::oneshot;

use super::{Place, Role, Sessions};
use crate::schedule::{
    Completed, JobError, JobId, Planned, Planner, Policy, QueueLimits, loan::Lending, rate::Rate, replicas::Replicas,
};

/// What belongs to a job while it waits and runs.
#[derive(Debug)]
pub(in crate::schedule) struct Pending {
    pub(in crate::schedule) input: Arc<TokenizedInput>,
    pub(in crate::schedule) reply: oneshot::Sender<Result<Completed, JobError>>,
    pub(in crate::schedule) submitted: Instant,
    /// The device that knows what it begins with.
    pub(super) home: Option<usize>,
}

impl Pending {
    /// Answers the job. That nobody listens any more is no error: the ticket was dropped.
    pub(in crate::schedule) fn reply(self, result: Result<Completed, JobError>) {
        drop(self.reply.send(result));
    }
}

/// A batch on its way through a worker.
#[derive(Debug)]
pub(in crate::schedule) struct Pass {
    pub(in crate::schedule) jobs: Vec<Planned<Pending>>,
    pub(in crate::schedule) cancellation: Cancellation,
    /// Where it runs, and what its session counts as.
    pub(in crate::schedule) place: Place,
}

/// The jobs that wait and those that run.
#[derive(Debug)]
pub(in crate::schedule) struct Jobs {
    pub(super) planner: Planner<Pending>,
    pub(super) parallel_running: usize,
    pub(super) parallel_idle: usize,
    pub(super) single_running: bool,
    pub(super) replicas: Replicas,
    pub(super) running_tokens: usize,
    /// The running pass of each job whose ticket is still held.
    pub(super) running: HashMap<JobId, Arc<Listeners>>,
    pub(super) rate: Rate,
    pub(super) memory: MemoryBound,
    pub(super) policy: Policy,
    pub(super) sessions: Sessions,
    /// Set while somebody borrows the sessions, which is only while nothing waits.
    pub(super) lending: Option<Lending>,
}

/// Who still waits for a running pass.
#[derive(Debug)]
pub(super) struct Listeners {
    left: Mutex<usize>,
    cancellation: Cancellation,
}

/// What was given up when the scheduler was stopped.
pub(in crate::schedule) struct Abandoned {
    waiting: Vec<Planned<Pending>>,
    running: Vec<Arc<Listeners>>,
}

impl Jobs {
    /// Nothing waits, and nothing runs.
    pub(super) fn none(sessions: Sessions, replicas: Replicas, policy: Policy, limits: &QueueLimits) -> Self {
        Self {
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
        }
    }

    /// Whether one waiting job or a few are better off on the session on all cores.
    pub(super) fn suit_single(&self) -> bool {
        self.sessions.single && self.parallel_running == 0 && self.planner.len() <= self.policy.single_jobs
    }

    /// Whether a worker may take a batch for its device now.
    pub(super) fn may_begin(&self, place: Place) -> bool {
        place.role == Role::Single || self.replicas.may_begin(place.replica, self.planner.tokens(), self.memory.bound())
    }

    /// A batch goes to a worker there.
    pub(super) fn begin(&mut self, jobs: Vec<Planned<Pending>>, place: Place) -> Pass {
        match place.role {
            Role::Parallel => {
                self.parallel_running += 1;
                self.replicas.begin(place.replica, jobs.iter().map(|planned| planned.job.tokens).sum());
            }
            Role::Single => self.single_running = true,
        }
        let cancellation = Cancellation::new();
        let listeners = Arc::new(Listeners { left: Mutex::new(jobs.len()), cancellation: cancellation.clone() });
        for planned in &jobs {
            self.running_tokens += planned.job.tokens;
            self.running.insert(planned.id, Arc::clone(&listeners));
        }
        Pass { jobs, cancellation, place }
    }

    /// Takes out what waits, and what it takes to cancel what runs.
    pub(super) fn give_up(&mut self) -> Abandoned {
        Abandoned { waiting: self.planner.drain(), running: self.running.drain().map(|(_, pass)| pass).collect() }
    }
}

impl Listeners {
    /// One of them has gone; the last one cancels the pass.
    pub(super) fn leave(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
        if *left == 0 {
            self.cancellation.cancel();
        }
    }
}

impl Abandoned {
    /// Tells those who wait, and cancels what runs.
    pub(super) fn fail(self) {
        for planned in self.waiting {
            planned.job.payload.reply(Err(JobError::Stopped));
        }
        for pass in self.running {
            pass.cancellation.cancel();
        }
    }
}
