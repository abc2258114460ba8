//! `/v1/runs`: what a server has seen of training runs, and which signals fire.

mod events;
mod outcomes;

use aide::{
    OperationOutput,
    axum::{
        ApiRouter,
        routing::{get_with, post_with},
    },
    generate::GenContext,
    openapi::{MediaType, Operation, Response as ResponseDoc},
    transform::TransformOperation,
};
use axum::{
    Json,
    extract::{Path, Query},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use karat_runs::{
    registry::ConfigError,
    run::{Config, RunName, RunNameError, RunReport, RunSummary},
    signals,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    AppState,
    body::JsonBody,
    problem::{Problem, ProblemType, invalid},
    runs::{another_keys, now},
    visit::Visited,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .api_route("/v1/runs", get_with(list, describe_list))
        .api_route("/v1/signals", get_with(signals, describe_signals))
        .api_route(
            "/v1/runs/{run}",
            get_with(show, describe_show).put_with(configure, describe_configure).delete_with(forget, describe_forget),
        )
        .api_route("/v1/runs/{run}/events", get_with(events::events, events::describe))
        .api_route("/v1/runs/{run}/outcomes", post_with(outcomes::add, outcomes::describe))
}

/// Which run.
#[derive(Debug, Deserialize, JsonSchema)]
struct RunPath {
    /// The run's name.
    run: String,
}

impl RunPath {
    fn name(&self) -> Result<RunName, Problem> {
        self.run.parse().map_err(|error: RunNameError| Problem::new(ProblemType::UnknownRun, error.to_string()))
    }

    /// The name of a run that the request may see, whether or not there is one, once everything before is recorded: what was
    /// replied to is there for whoever asks next, and whose it is shows then.
    async fn visible_to(&self, state: &AppState) -> Result<RunName, Problem> {
        let name = self.name()?;
        state.runs.settle().await;
        // To another key it isn't there at all.
        if state.may_use_run(&name) { Ok(name) } else { Err(unknown(&name)) }
    }
}

fn unknown(name: &RunName) -> Problem {
    Problem::new(
        ProblemType::UnknownRun,
        format!("there is no run {name}; GET /v1/runs lists them, and a scoring request that names one makes it"),
    )
}

/// Every run.
#[derive(Debug, Serialize, JsonSchema)]
struct RunList {
    /// The runs, the one heard of last first; with keys, those of the request's own and of nobody's.
    runs: Vec<RunSummary>,
    /// Samples that were scored and are in no run's statistics, since they came faster than they could be counted.
    dropped: u64,
}

fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("listRuns").tag("Runs").summary("List the training runs that were scored for").description(
        "A scoring request belongs to a run where its body, the query of its URL or its headers say so: `run` and `step`, \
         `?run=…&step=…`, `X-Karat-Run` and `X-Karat-Step`.",
    )
}

async fn list(Visited(state): Visited) -> Json<RunList> {
    state.runs.settle().await;
    let runs = state.runs.runs.list(|owner| state.visit.may_use(owner));
    Json(RunList { runs, dropped: state.runs.recorder.dropped() })
}

/// Every signal.
#[derive(Debug, Serialize, JsonSchema)]
struct SignalList {
    /// The signals.
    signals: Vec<SignalEntry>,
}

/// One signal.
#[derive(Debug, Serialize, JsonSchema)]
struct SignalEntry {
    /// Its name.
    name: &'static str,
    /// What it means that it fires.
    summary: &'static str,
    /// How its value is computed, and its limit.
    formula: &'static str,
    /// Where the formula comes from.
    source: &'static str,
}

fn describe_signals(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("listSignals").tag("Runs").summary("List the signals of over-optimisation").description(
        "A signal fires where the whole interval of its value, three standard errors to each side, lies above its limit.",
    )
}

async fn signals() -> Json<SignalList> {
    let signals = signals::CATALOGUE.iter().map(|entry| SignalEntry {
        name: entry.name,
        summary: entry.summary,
        formula: entry.formula,
        source: entry.source,
    });
    Json(SignalList { signals: signals.collect() })
}

/// How to tell of a run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    /// `json`, or `csv` for the steps as a table; by default what the `Accept` header asks for.
    #[serde(default)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Csv,
}

/// A run as JSON or as a table.
enum Shown {
    Json(Box<RunReport>),
    Csv(String),
}

impl IntoResponse for Shown {
    fn into_response(self) -> Response {
        match self {
            Self::Json(report) => Json(report).into_response(),
            Self::Csv(table) => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table).into_response(),
        }
    }
}

impl OperationOutput for Shown {
    type Inner = RunReport;

    fn operation_response(context: &mut GenContext, operation: &mut Operation) -> Option<ResponseDoc> {
        let mut response = Json::<RunReport>::operation_response(context, operation)?;
        response.description = "The run; as a table, a line for each step".to_owned();
        response.content.insert("text/csv".to_owned(), MediaType::default());
        Some(response)
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Self::operation_response(context, operation).map(|response| (Some(200), response)).into_iter().collect()
    }
}

fn describe_show(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("showRun")
        .tag("Runs")
        .summary("Show a run's statistics and signals by model and step")
        .description("As JSON, or with `Accept: text/csv` or `?format=csv` as a table of the steps.")
}

async fn show(
    Visited(state): Visited,
    Path(path): Path<RunPath>,
    Query(query): Query<ShowQuery>,
    headers: HeaderMap,
) -> Result<Shown, Problem> {
    let name = path.visible_to(&state).await?;
    let report = state.runs.runs.report(&name).ok_or_else(|| unknown(&name))?;
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let asked =
        query.format.or_else(|| accepts.is_some_and(|accept| accept.contains("text/csv")).then_some(Format::Csv));
    Ok(if asked == Some(Format::Csv) { Shown::Csv(report.to_csv()) } else { Shown::Json(Box::new(report)) })
}

fn describe_configure(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("configureRun").tag("Runs").summary("Ask more of a run than statistics").description(
        "A second judge scores a share of the samples at the lowest priority; edits that shouldn't matter are tried on a \
         share; another run's rewards stand in for this run's beginning. The body replaces what was asked before. The run \
         needn't have begun.",
    )
}

async fn configure(
    Visited(state): Visited,
    Path(path): Path<RunPath>,
    JsonBody(config): JsonBody<Config>,
) -> Result<Json<Config>, Problem> {
    let name = path.name()?;
    if let Some(judge) = &config.judge {
        state.engine.model(&judge.model).map_err(|error| Problem::from(error).about("judge.model"))?;
    }
    state.runs.settle().await;
    if let Some(reference) = config.reference.clone().filter(|reference| !state.may_use_run(reference)) {
        return Err(invalid(ConfigError::NoReference(reference)));
    }
    if !state.may_use_run(&name) {
        return Err(another_keys(&name));
    }
    state.runs.runs.configure(&name, config.clone(), state.visit.key_name(), now()).map_err(|error| match error {
        ConfigError::Invalid(_) | ConfigError::NoReference(_) => invalid(error),
    })?;
    if state.runs.store.lasts() {
        state.runs.store.save(&state.runs.runs).await?;
    }
    Ok(Json(config))
}

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
struct Forgotten {
    /// The run that is no more.
    forgotten: RunName,
}

fn describe_forget(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("forgetRun").tag("Runs").summary("Forget a run with its outcomes")
}

async fn forget(Visited(state): Visited, Path(path): Path<RunPath>) -> Result<Json<Forgotten>, Problem> {
    let name = path.visible_to(&state).await?;
    if !state.runs.runs.forget(&name) {
        return Err(unknown(&name));
    }
    if state.runs.store.lasts() {
        state.runs.store.save(&state.runs.runs).await?;
    }
    Ok(Json(Forgotten { forgotten: name }))
}
