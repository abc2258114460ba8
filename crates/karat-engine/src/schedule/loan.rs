//! Sessions that are borrowed from their workers while these have nothing to do.
//!
//! What suits a model on a machine is measured with the sessions that serve it, so that no memory is taken for others. A
//! job that arrives goes first: it cancels the loan, and what is measured breaks off as a pass does that nobody waits for.

use std::{
    fmt,
    sync::{Arc, mpsc},
};

use karat_rules::domain::RowTensor;
use karat_runtime::{Cancellation, Executor, RuntimeError, TokenBatch};

use super::{
    Executors, Policy,
    calibrate::Calibration,
    dispatch::{Dispatch, Role},
};

/// How workers hand their sessions over.
#[derive(Debug, Clone)]
pub(super) struct Lending {
    borrower: mpsc::Sender<(Role, Lent)>,
    cancellation: Cancellation,
}

impl Lending {
    /// Lends a session, and blocks until it is back; `None` where it is lost.
    pub(super) fn lend(self, worker: Role, executor: Box<dyn Executor>) -> Option<Box<dyn Executor>> {
        let (back, returned) = mpsc::channel();
        // Where nobody borrows any more, it comes back at once.
        drop(self.borrower.send((worker, Lent { executor: Some(executor), back })));
        // Who borrows must not wait for another session from here.
        drop(self.borrower);
        returned.recv().ok()
    }

    /// Wants the sessions back.
    pub(super) fn interrupt(&self) {
        self.cancellation.cancel();
    }
}

/// A session on loan. It goes back when this is dropped.
struct Lent {
    executor: Option<Box<dyn Executor>>,
    back: mpsc::Sender<Box<dyn Executor>>,
}

impl Executor for Lent {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        // It is there until this is dropped.
        self.executor.as_mut().ok_or(RuntimeError::Cancelled)?.run(batch, cancel)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(executor) = self.executor.take() {
            // A worker waits for it, whatever becomes of the model.
            drop(self.back.send(executor));
        }
    }
}

/// All sessions of a scheduler. They go back when this is dropped.
pub(super) struct Loan {
    dispatch: Arc<Dispatch>,
    executors: Executors,
    cancellation: Cancellation,
}

/// A loan before all sessions are there.
pub(super) struct Asked {
    lent: mpsc::Receiver<(Role, Lent)>,
    all: usize,
    loan: Loan,
}

impl Loan {
    /// Asks for `all` sessions.
    pub(super) fn begin(dispatch: &Arc<Dispatch>, all: usize) -> (Lending, Asked) {
        let (borrower, lent) = mpsc::channel();
        let cancellation = Cancellation::new();
        let executors = Executors { parallel: Vec::new(), single: None };
        let loan = Self { dispatch: Arc::clone(dispatch), executors, cancellation: cancellation.clone() };
        (Lending { borrower, cancellation }, Asked { lent, all, loan })
    }

    /// The sessions, in the kinds that they were started as.
    pub(super) fn executors(&mut self) -> &mut Executors {
        &mut self.executors
    }

    /// Used as soon as somebody else needs the sessions.
    pub(super) fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Lets the scheduler go on as was chosen. Workers whose sessions were left out end.
    pub(super) fn adopt(self, chosen: &Calibration, policy: Policy) {
        let mut sessions = self.dispatch.sessions();
        if chosen.single_threads.is_none() {
            // One session on all cores was faster than one on each.
            if sessions.single && chosen.sessions.get() < sessions.parallel {
                (sessions.parallel, sessions.crew) = (1, Role::Single);
            }
            sessions.single = false;
        }
        self.dispatch.adopt(policy, sessions, chosen.tokens_per_second);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Before the sessions are back, lest they are lent once more.
        self.dispatch.lent_back();
    }
}

impl Asked {
    /// Blocks until all sessions are there; `None` where somebody else needs them.
    pub(super) fn collect(self) -> Option<Loan> {
        let Self { lent, all, mut loan } = self;
        for _ in 0..all {
            let (role, session) = lent.recv().ok()?;
            match role {
                Role::Parallel => loan.executors.parallel.push(Box::new(session)),
                Role::Single => loan.executors.single = Some(Box::new(session)),
            }
        }
        Some(loan)
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("sessions", &self.executors.parallel.len()).finish_non_exhaustive()
    }
}
