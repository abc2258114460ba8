//! One model's queue with its threads: one for each session.

use std::io;

use karat_runtime::Executor;

use super::{
    Job, Policy, QueueLimits, QueueRefusal, Ticket,
    dispatch::{Dispatch, Role, Sessions},
    worker,
};
use crate::{
    telemetry::ModelMetrics,
    workers::{Roster, Stage, Workers},
};

/// The sessions of one model.
pub struct Executors {
    /// Sessions that run side by side, as a rule one thread each; at least one.
    pub parallel: Vec<Box<dyn Executor>>,
    /// A session on all cores, for when too few jobs wait to keep the parallel ones busy.
    pub single: Option<Box<dyn Executor>>,
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
/// Dropping it stops it at once: what waits fails with [`super::JobError::Stopped`], what runs is cancelled.
/// Draining the roster finishes everything first.
#[derive(Debug)]
pub struct Scheduler {
    workers: Workers<Dispatch>,
}

impl Scheduler {
    /// Starts one thread for each executor.
    ///
    /// # Errors
    /// When there is no executor, or the system gives no thread.
    pub fn start(
        executors: Executors,
        policy: Policy,
        limits: QueueLimits,
        metrics: ModelMetrics,
    ) -> Result<Self, StartError> {
        let Executors { parallel, single } = executors;
        if parallel.is_empty() {
            return Err(StartError::NoExecutor);
        }
        let sessions = Sessions { parallel: parallel.len(), single: single.is_some() };
        // Made before the threads, so that they are stopped if one of them can't start.
        let workers = Workers::new(Dispatch::new(sessions, policy, limits, metrics));
        let parallel = parallel
            .into_iter()
            .enumerate()
            .map(|(index, executor)| (format!("karat-run-{index}"), executor, Role::Parallel));
        let single = single.map(|executor| ("karat-run-single".to_owned(), executor, Role::Single));
        for (name, executor, role) in parallel.chain(single) {
            workers.spawn(&name, move |dispatch| worker::work(dispatch, executor, role))?;
        }
        Ok(Self { workers })
    }

    /// Admits all of `jobs` or none. The tickets come in the order of the jobs.
    ///
    /// # Errors
    /// When too much waits, a deadline can't be met, or the scheduler is shutting down.
    pub fn submit(&self, jobs: Vec<Job>) -> Result<Vec<Ticket>, QueueRefusal> {
        self.workers.work().submit(jobs)
    }

    /// How many jobs and tokens wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.workers.work().waiting()
    }

    /// Lets a roster end the threads with those of other queues.
    pub(crate) fn enlist(&self, roster: &Roster, stage: Stage) {
        self.workers.enlist(roster, stage);
    }
}

#[cfg(test)]
mod tests;
