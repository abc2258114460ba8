//! `/v1/jobs`: rows that are scored when there is nothing else to do, and whose results come as they come.

mod submission;
mod turns;
mod upload;
mod worker;

use aide::{
    axum::{
        ApiRouter,
        routing::{get_with, post_with},
    },
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::{Path, Query},
    response::{IntoResponse, Response},
};
use http::{HeaderName, StatusCode, header};
use karat_runs::store::{Job, JobState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    AppState,
    problem::{Problem, ProblemType},
    runs::now,
    visit::Visited,
};
use upload::Upload;

pub(in crate::api) use worker::{Progress, work};
pub(super) use worker::{rows_id, scored_together};

/// The place of the first row that the reply lacks.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("x-karat-next-offset");
/// How many results are given at once, unless the client says so.
const RESULTS: u32 = 1000;
/// The most that are given at once.
const MOST_RESULTS: u32 = 10_000;

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/v1/jobs", post_with(submit, describe_submit).get_with(list, describe_list))
        .api_route("/v1/jobs/{job}", get_with(show, describe_show).delete_with(cancel, describe_cancel))
        .api_route("/v1/jobs/{job}/results", get_with(results, describe_results))
}

/// Which job.
#[derive(Debug, Deserialize, JsonSchema)]
struct JobPath {
    /// The job's id.
    job: String,
}

/// The job of that id, if the request may see it: to another key it isn't there at all.
async fn visible(state: &AppState, id: &str) -> Result<Job, Problem> {
    let job = state.runs.jobs.find(id.to_owned()).await?;
    job.filter(|job| state.visit.may_use(job.key.as_deref())).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Problem {
    Problem::new(ProblemType::UnknownJob, format!("there is no job {id:?}; GET /v1/jobs lists them"))
}

/// A job and how far it is.
#[derive(Debug, Serialize, JsonSchema)]
struct JobBody {
    /// Its id.
    id: String,
    /// How far it is.
    state: JobState,
    /// When it came, in milliseconds since 1970.
    created: u64,
    /// When it was done or cancelled; null until then.
    ended: Option<u64>,
    /// How many rows it has.
    rows: u64,
    /// How many of them have results.
    done: u64,
    /// How many of those couldn't be scored: their results say why.
    failed: u64,
    /// Rows a second, while it is being worked on; null otherwise.
    rate: Option<f64>,
    /// How long it will take at that rate, in seconds; null where there is none.
    seconds_left: Option<f64>,
    /// Whether it is still there after a restart: the server was started with `--state`.
    lasts: bool,
}

impl JobBody {
    fn new(job: Job, state: &AppState) -> Self {
        let rate = (job.state == JobState::Running).then(|| state.runs.progress.rate(&job)).flatten();
        let left = (job.rows - job.done.min(job.rows)) as f64;
        Self {
            state: job.state,
            created: job.created,
            ended: job.ended,
            rows: job.rows,
            done: job.done,
            failed: job.failed,
            rate,
            seconds_left: rate.map(|rate| left / rate),
            lasts: state.runs.store.lasts(),
            id: job.id,
        }
    }
}

fn describe_submit(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("submitJob")
        .tag("Jobs")
        .summary("Have many rows scored when there is nothing else to do")
        .description(
            "The body is that of `POST /v1/score`, or JSON Lines of any length: first a line with all fields of that body but \
             `inputs`, then a line for each input. The lines are kept as they come, and answered with 202 when the last is \
             there. Rows are scored at the lowest priority, a few of each job in turn and of each key's jobs in turn, \
             with the key that the job came with; no other key sees the job, but admin ones. With `--state` a job that was accepted survives restarts. A client \
             that heard no answer sends the job again under the same `Idempotency-Key`, and it is the same job.",
        )
        .response_with::<202, Json<JobBody>, _>(|response| response.description("The job, whose rows wait to be scored"))
}

async fn submit(Visited(state): Visited, upload: Upload) -> Result<Response, Problem> {
    let id = upload.receive().await?;
    let job = visible(&state, &id).await?;
    state.runs.progress.wake();
    Ok((StatusCode::ACCEPTED, Json(JobBody::new(job, &state))).into_response())
}

/// Every job.
#[derive(Debug, Serialize, JsonSchema)]
struct JobList {
    /// The jobs, the latest first; with keys, those of the request's own and of nobody's.
    jobs: Vec<JobBody>,
}

fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("listJobs").tag("Jobs").summary("List the jobs")
}

async fn list(Visited(state): Visited) -> Result<Json<JobList>, Problem> {
    let mut jobs = state.runs.jobs.list().await?;
    jobs.retain(|job| state.visit.may_use(job.key.as_deref()));
    Ok(Json(JobList { jobs: jobs.into_iter().map(|job| JobBody::new(job, &state)).collect() }))
}

fn describe_show(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("showJob").tag("Jobs").summary("Show how far a job is")
}

async fn show(Visited(state): Visited, Path(JobPath { job: id }): Path<JobPath>) -> Result<Json<JobBody>, Problem> {
    let job = visible(&state, &id).await?;
    Ok(Json(JobBody::new(job, &state)))
}

fn describe_cancel(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("cancelJob").tag("Jobs").summary("Cancel a job, or remove one that has ended").description(
        "A job that runs is cancelled: its results so far stay. One that is done or cancelled is removed with its results. The \
         reply is the job as it was left.",
    )
}

async fn cancel(Visited(state): Visited, Path(JobPath { job: id }): Path<JobPath>) -> Result<Json<JobBody>, Problem> {
    let before = visible(&state, &id).await?;
    if before.ended.is_some() {
        state.runs.jobs.remove(id).await?;
        return Ok(Json(JobBody::new(before, &state)));
    }
    let job = state.runs.jobs.cancel(id.clone(), now()).await?.ok_or_else(|| unknown(&id))?;
    Ok(Json(JobBody::new(job, &state)))
}

/// Which results.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResultsQuery {
    /// The place of the first row whose result is wanted, counted from 0.
    #[serde(default)]
    offset: u64,
    /// The most results, up to 10,000; 1,000 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<u32>,
}

fn describe_results(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("jobResults")
        .tag("Jobs")
        .summary("Get a job's results as they come")
        .description(
            "JSON Lines in the order of the rows, as many as there are from `offset` on: each a result of `POST /v1/score` \
             with the row's place as its `index` and the `model_version` that scored it, or `{\"index\", \"error\"}` with a problem. The header \
             `X-Karat-Next-Offset` says where to go on. An empty reply of a job that is done means that this was all.",
        )
        .response_with::<200, String, _>(|response| response.description("JSON Lines, one result each"))
}

async fn results(
    Visited(state): Visited,
    Path(JobPath { job: id }): Path<JobPath>,
    Query(ResultsQuery { offset, limit }): Query<ResultsQuery>,
) -> Result<Response, Problem> {
    visible(&state, &id).await?;
    let most = limit.unwrap_or(RESULTS).clamp(1, MOST_RESULTS);
    let results = state.runs.jobs.results(id, offset, most).await?;
    let next = offset + results.len() as u64;
    let mut lines = results.join("\n");
    if !lines.is_empty() {
        lines.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson".to_owned()), (NEXT_OFFSET, next.to_string())], lines)
        .into_response())
}
