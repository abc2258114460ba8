//! One thread, one session.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use karat_rules::domain::RowTensor;
use karat_runtime::{Cancellation, Executor, RuntimeError, TokenBatch};

use super::{
    Completed, JobError, JobId, PassId, PassRecord, Planned,
    dispatch::{Dispatch, Pass, Pending, Place, Task},
};

/// Runs passes until the scheduler stops, or wants this session no more.
pub(super) fn work(dispatch: &Dispatch, mut executor: Box<dyn Executor>, worker: Place) {
    while let Some(task) = dispatch.next(worker) {
        let pass = match task {
            Task::Run(pass) => pass,
            Task::Lend(lending) => match lending.lend(worker.role, executor) {
                Some(back) => {
                    executor = back;
                    continue;
                }
                None => return,
            },
        };
        let place = pass.place;
        let ids: Vec<JobId> = pass.jobs.iter().map(|planned| planned.id).collect();
        let tokens = pass.jobs.iter().map(|planned| planned.job.tokens).sum();
        let took = run(dispatch, executor.as_mut(), pass);
        dispatch.end(place, &ids, tokens, took);
    }
}

/// Runs a batch and answers its jobs; gives the time it took when it gave results.
fn run(dispatch: &Dispatch, executor: &mut dyn Executor, pass: Pass) -> Option<Duration> {
    let Pass { jobs, cancellation, .. } = pass;
    let started = Instant::now();
    for planned in &jobs {
        dispatch.metrics.waited(started - planned.job.payload.submitted);
    }
    compute(dispatch, executor, jobs, &cancellation).then(|| started.elapsed())
}

/// Computes jobs together, or in smaller parts where they fail together; tells whether they came through at once.
fn compute(
    dispatch: &Dispatch,
    executor: &mut dyn Executor,
    mut jobs: Vec<Planned<Pending>>,
    cancellation: &Cancellation,
) -> bool {
    let started = Instant::now();
    let failure = match attempt(dispatch, executor, &jobs, cancellation) {
        Ok(rows) => {
            answer(jobs, rows, started);
            return true;
        }
        Err(failure) => failure,
    };
    if cancellation.is_cancelled() || jobs.len() == 1 {
        for planned in jobs {
            planned.job.payload.reply(Err(failure.clone()));
        }
        return false;
    }
    let parts = if is_out_of_memory(&failure) {
        let longer = jobs.split_off(jobs.len() / 2);
        vec![jobs, longer]
    } else {
        // One sample that can't be computed must not take its neighbours with it.
        jobs.into_iter().map(|planned| vec![planned]).collect()
    };
    for mut part in parts {
        part.retain(|planned| !planned.job.payload.reply.is_closed());
        if !part.is_empty() {
            compute(dispatch, executor, part, cancellation);
        }
    }
    false
}

fn is_out_of_memory(failure: &JobError) -> bool {
    matches!(failure, JobError::Runtime(error) if matches!(**error, RuntimeError::OutOfMemory { .. }))
}

fn attempt(
    dispatch: &Dispatch,
    executor: &mut dyn Executor,
    jobs: &[Planned<Pending>],
    cancellation: &Cancellation,
) -> Result<Vec<Vec<RowTensor>>, JobError> {
    let inputs = jobs.iter().map(|planned| Arc::clone(&planned.job.payload.input)).collect();
    // A plan holds at least one job.
    let batch = TokenBatch::new(inputs).ok_or(JobError::Stopped)?;
    let positions = match executor.shapes() {
        Some(shapes) => shapes.rounded([batch.len(), batch.longest()]).into_iter().product(),
        None if executor.pads() => batch.padded_tokens(),
        None => batch.tokens(),
    };
    let guard = dispatch.metrics.pass(batch.len(), batch.tokens(), positions);
    // An executor that panicked is used again: its session is ONNX Runtime's, which no Rust panic passes through,
    // and its buffers are rewritten for each pass.
    let result = catch_unwind(AssertUnwindSafe(|| executor.run(&batch, cancellation)));
    dispatch.metrics.retried(executor.take_retries());
    match result {
        Ok(Ok(rows)) if rows.len() == batch.len() => {
            guard.done();
            dispatch.fitted_into_memory(positions);
            Ok(rows)
        }
        Ok(Ok(rows)) => {
            tracing::error!(samples = batch.len(), rows = rows.len(), "the executor returned another number of rows");
            Err(JobError::Panicked)
        }
        Ok(Err(RuntimeError::Cancelled)) => {
            guard.cancelled();
            Err(JobError::Stopped)
        }
        Ok(Err(error @ RuntimeError::OutOfMemory { .. })) => {
            guard.out_of_memory();
            dispatch.ran_out_of_memory(positions);
            Err(JobError::Runtime(Arc::new(error)))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, samples = batch.len(), "a forward pass failed");
            Err(JobError::Runtime(Arc::new(error)))
        }
        // The panic's own message went through the panic hook.
        Err(_) => Err(JobError::Panicked),
    }
}

fn answer(jobs: Vec<Planned<Pending>>, rows: Vec<Vec<RowTensor>>, started: Instant) {
    let running = started.elapsed();
    let batch_size = jobs.len();
    let tokens = jobs.iter().map(|planned| planned.job.tokens).sum();
    let pass = Arc::new(PassRecord { id: PassId::unique(), started, running, samples: batch_size, tokens });
    for (planned, rows) in jobs.into_iter().zip(rows) {
        let job = planned.job.payload;
        let queued = started - job.submitted;
        job.reply(Ok(Completed { rows, queued, running, batch_size, pass: Arc::clone(&pass) }));
    }
}
