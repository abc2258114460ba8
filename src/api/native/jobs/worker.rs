//! Works on jobs in [turns](super::turns), a few rows of each at a time and at the lowest priority: neither a long job nor one that waits
//! for its model or its key's tokens holds the others up.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use karat_engine::{
    engine::ScoreReport,
    schedule::{Admission, Priority},
};
use karat_runs::store::{Job, JobRow, ResultRow, StoreError};
use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use super::{
    super::{
        request::{Input, Options},
        result::{Include, SampleResult},
    },
    turns::{Turn, Turns},
    upload::JobOptions,
};
use crate::api::{
    AppState, body,
    problem::{Problem, ProblemType, invalid},
    runs::now,
};

/// How many rows are scored at once: enough to fill a batch, few enough that others don't wait for them.
const TOGETHER: u32 = 32;
/// How long a job rests whose model or queue takes nothing, or whose key has no tokens left.
const PAUSE: Duration = Duration::from_secs(1);
/// How long jobs that ended are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many results of jobs that ended are kept, in a file and in memory.
const RESULTS: [u64; 2] = [100_000_000, 1_000_000];

/// How fast the jobs go that are being worked on.
#[derive(Debug, Default)]
pub(in crate::api) struct Progress {
    begun: Mutex<HashMap<String, Begun>>,
    more: Notify,
}

/// When this process began to work on a job, and how many rows were done then.
#[derive(Debug)]
struct Begun {
    since: Instant,
    done_before: u64,
}

impl Progress {
    /// Says that there is a new job.
    pub(super) fn wake(&self) {
        self.more.notify_one();
    }

    /// Rows a second of a job, if it is being worked on.
    pub(super) fn rate(&self, job: &Job) -> Option<f64> {
        let begun = self.lock();
        let begun = begun.get(&job.id)?;
        let rows = job.done.checked_sub(begun.done_before).filter(|rows| *rows > 0)?;
        Some(rows as f64 / begun.since.elapsed().as_secs_f64().max(1e-9))
    }

    fn begin(&self, job: &Job) {
        let new = || Begun { since: Instant::now(), done_before: job.done };
        self.lock().entry(job.id.clone()).or_insert_with(new);
    }

    fn forget(&self, job: &str) {
        self.lock().remove(job);
    }

    fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Begun>> {
        // Entries are put whole.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works on jobs for as long as the server runs.
pub(in crate::api) async fn work(state: AppState) {
    let mut turns = Turns::default();
    loop {
        match step(&state, &mut turns).await {
            Ok(Turn::Of(_)) => {}
            Ok(Turn::Resting(until)) => {
                let _ = tokio::time::timeout_at(until, state.runs.progress.more.notified()).await;
            }
            Ok(Turn::Nothing) => {
                // Those that were cancelled meanwhile are among them.
                state.runs.progress.forget_all();
                let before = now().saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
                let most = RESULTS[usize::from(!state.runs.store.lasts())];
                if let Err(error) = state.runs.jobs.retain(before, most).await {
                    tracing::error!(%error, "old jobs were not removed");
                }
                state.runs.progress.more.notified().await;
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "a job's rows can't be read or written");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A result as it is kept: a job may see more than one version of its model.
#[derive(Serialize)]
struct Done<'a> {
    model_version: &'a str,
    #[serde(flatten)]
    result: SampleResult,
}

/// A row that can't be scored.
#[derive(Serialize)]
struct Failed<E> {
    index: u64,
    error: E,
}

async fn step(state: &AppState, turns: &mut Turns) -> Result<Turn, StoreError> {
    let running = state.runs.jobs.running().await?;
    let turn = turns.next(running, Instant::now());
    let Turn::Of(id) = &turn else { return Ok(turn) };
    // One that was cancelled meanwhile has no rows any more.
    let Some((job, rows)) = state.runs.jobs.next(id.clone(), TOGETHER).await? else { return Ok(turn) };
    state.runs.progress.begin(&job);
    let Some(results) = score_rows(state, &job, &rows).await else {
        turns.rest(job.id, Instant::now() + PAUSE);
        return Ok(turn);
    };
    if job.done + results.len() as u64 >= job.rows {
        state.runs.progress.forget(&job.id);
    }
    keep(state, &job.id, &results).await?;
    Ok(turn)
}

/// Keeps results, and waits for room on the disk where there is none: what was scored anew would be paid for anew.
async fn keep(state: &AppState, job: &str, results: &[ResultRow]) -> Result<(), StoreError> {
    loop {
        match state.runs.jobs.finish(job.to_owned(), results.to_vec(), now()).await {
            Err(error @ StoreError::Full) => tracing::error!(%error, "a job's results wait"),
            done => return done,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The results of rows; none where the model or its queue takes nothing now, or the key's tokens are used up.
async fn score_rows(state: &AppState, job: &Job, rows: &[JobRow]) -> Option<Vec<ResultRow>> {
    match score_together(state, job, rows).await {
        Scored::Results(results) => return Some(results),
        Scored::Later => return None,
        // One of them is at fault: which one shows when each is by itself.
        Scored::Problem(_) => {}
    }
    let mut results = Vec::with_capacity(rows.len());
    for row in rows {
        match score_together(state, job, std::slice::from_ref(row)).await {
            Scored::Results(found) => results.extend(found),
            // What was scored is kept: done anew it would be paid for anew, and a job might never end.
            Scored::Later => return (!results.is_empty()).then_some(results),
            Scored::Problem(problem) => results.push(failed(row.place, *problem)),
        }
    }
    Some(results)
}

enum Scored {
    Results(Vec<ResultRow>),
    Problem(Box<Problem>),
    Later,
}

async fn score_together(state: &AppState, job: &Job, rows: &[JobRow]) -> Scored {
    let (include, tag, request) = match request(job, rows) {
        Ok(made) => made,
        Err(problem) => return Scored::Problem(Box::new(problem)),
    };
    let state = match state.on_behalf_of_key(job.key.as_deref()) {
        Ok(state) => state,
        Err(problem) => return Scored::Problem(Box::new(problem)),
    };
    let id = rows_id(&job.id, rows.first().map_or(0, |row| row.place));
    match state.score(tag.as_ref(), &id, request).await {
        Ok(report) => Scored::Results(results(report, rows, &include)),
        Err(problem) => match problem.kind() {
            ProblemType::Overloaded
            | ProblemType::DeadlinePassed
            | ProblemType::ModelUnavailable
            | ProblemType::StateFull
            | ProblemType::OutOfTokens => Scored::Later,
            // A server that has just begun may not have come to its models yet.
            ProblemType::UnknownModel if !state.engine.repository().is_ready() => Scored::Later,
            _ => Scored::Problem(Box::new(problem)),
        },
    }
}

/// Under which id outcomes find the rewards of rows that were scored together, of which that is the first.
pub(in crate::api::native) fn rows_id(job: &str, first: u64) -> String {
    format!("{job}:{first}")
}

/// Where the rows may begin that a row was scored together with.
pub(in crate::api::native) fn scored_together(row: usize) -> impl Iterator<Item = usize> {
    (0..TOGETHER as usize).map_while(move |before| row.checked_sub(before))
}

type Request = (BTreeSet<Include>, Option<crate::api::runs::RunTag>, karat_engine::engine::ScoreRequest);

fn request(job: &Job, rows: &[JobRow]) -> Result<Request, Problem> {
    let (own, mut options): (JobOptions, Options) = JobOptions::parse(job.options.as_bytes())?;
    let samples = rows.iter().map(|row| {
        let input: Input = body::parse(row.body.as_bytes())?;
        input.into_sample().map(Ok).map_err(invalid)
    });
    let samples = samples.collect::<Result<Vec<_>, Problem>>()?;
    let tag = options.take_run_fields().tag()?;
    let request = options.into_request(samples, false)?.with_priority(Priority::Low).with_admission(Admission::Always);
    Ok((own.include, tag, request))
}

fn results(report: ScoreReport, rows: &[JobRow], include: &BTreeSet<Include>) -> Vec<ResultRow> {
    let scored = rows.iter().zip(report.results).map(|(row, sample)| {
        let place = usize::try_from(row.place).unwrap_or(usize::MAX);
        let done = Done { model_version: report.version.as_str(), result: SampleResult::new(place, sample, include) };
        // Results have text as keys and finite numbers.
        let body = serde_json::to_string(&done).unwrap_or_default();
        ResultRow { place: row.place, body, failed: false }
    });
    scored.collect()
}

fn failed(place: u64, problem: Problem) -> ResultRow {
    let body = serde_json::to_string(&Failed { index: place, error: problem.into_body() }).unwrap_or_default();
    ResultRow { place, body, failed: true }
}
