//! One model's queue with its threads: one for each session.

use std::io;

use karat_runtime::{Executor, RuntimeError};

use super::{
    Job, Policy, QueueLimits, QueueRefusal, Ticket,
    calibrate::{self, Calibration, Conditions},
    dispatch::{Dispatch, Place, Role, Sessions},
    replicas::Replicas,
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
        let sessions = Sessions { parallel: parallel.len(), single: single.is_some(), crew: Role::Parallel };
        let (replicas, numbers) = Replicas::of(&parallel);
        // Made before the threads, so that they are stopped if one of them can't start.
        let workers = Workers::new(Dispatch::new(sessions, replicas, policy, limits, metrics));
        let parallel = parallel
            .into_iter()
            .zip(numbers)
            .enumerate()
            .map(|(index, (executor, replica))| (format!("karat-run-{index}"), executor, Role::Parallel, replica));
        let single = single.map(|executor| ("karat-run-single".to_owned(), executor, Role::Single, 0));
        for (name, executor, role, replica) in parallel.chain(single) {
            workers.spawn(&name, move |dispatch| worker::work(dispatch, executor, Place { role, replica }))?;
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

    /// Measures which policy and which of its sessions suit the machine, with these sessions themselves, while they have
    /// nothing to do; `policy` makes a policy of the choice, which holds from then on. `None` where something waits or
    /// runs, where a job arrives meanwhile, which doesn't wait for it, and where the machine is busy otherwise: then
    /// nothing changes.
    ///
    /// Only for a scheduler that was started with the sessions of [`Calibration::assumed`].
    ///
    /// # Errors
    /// When a pass fails.
    pub(crate) fn calibrate(
        &self,
        conditions: &Conditions,
        policy: impl FnOnce(&mut Calibration) -> Policy,
    ) -> Result<Option<Calibration>, RuntimeError> {
        let Some(mut loan) = self.workers.work().borrow() else { return Ok(None) };
        let cancellation = loan.cancellation().clone();
        match calibrate::try_out(conditions, loan.executors(), &cancellation) {
            Ok((mut chosen, true)) if !cancellation.is_cancelled() => {
                let policy = policy(&mut chosen);
                loan.adopt(&chosen, policy);
                Ok(Some(chosen))
            }
            Ok(_) | Err(RuntimeError::Cancelled) => Ok(None),
            Err(error) => Err(error),
        }
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
