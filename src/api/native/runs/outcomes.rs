//! `POST /v1/runs/{run}/outcomes`: what came of samples, told later than their rewards.

use aide::transform::TransformOperation;
use axum::{Json, extract::Path};
use karat_runs::{
    registry::Runs,
    run::{Matched, RunName},
    store::Outcome,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::jobs::{rows_id, scored_together},
    RunPath,
};
use crate::api::{
    body::{JsonBody, objects},
    checks,
    problem::{Problem, invalid},
    reply_id::request_of,
    runs::now,
    visit::Visited,
};

/// What came of samples.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OutcomesBody {
    /// The outcomes, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    outcomes: Vec<OutcomeBody>,
}

/// What came of one sample.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OutcomeBody {
    /// The id of the request that scored the sample: its `X-Request-Id`, or the id that the reply's body tells, in whichever
    /// dialect; or a job's id.
    request: String,
    /// The sample's place in that request, or the row's in that job, counted from 0.
    #[serde(default)]
    index: u32,
    /// The outcome: a person's mark, whether a test passed, a benchmark's score. 0 and 1 count as failure and success.
    value: Value,
}

/// A number, or true and false.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Value {
    Truth(bool),
    Number(f64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Self::Truth(truth) => f64::from(u8::from(truth)),
            Self::Number(number) => number,
        }
    }
}

/// What became of the outcomes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OutcomesReply {
    /// How many were laid beside their rewards. With `--state` they are on the disk.
    accepted: usize,
    /// How many of samples that have an outcome already: those stay as they are, so that what is sent twice counts once.
    repeated: usize,
    /// The places in the request's list of those whose rewards the run doesn't remember: it keeps the latest tens of
    /// thousands.
    unknown: Vec<usize>,
}

pub(super) fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("addOutcomes").tag("Runs").summary("Tell what came of samples that were scored").description(
        "Each outcome is laid beside the reward that the sample got: `GET /v1/runs/{run}` tells how both correlate by \
         step, and how well the reward is calibrated as a probability of success.",
    )
}

pub(super) async fn add(
    Visited(state): Visited,
    Path(path): Path<RunPath>,
    JsonBody(body): JsonBody<OutcomesBody>,
) -> Result<Json<OutcomesReply>, Problem> {
    let run = path.visible_to(&state).await?;
    if body.outcomes.is_empty() {
        return Err(invalid("outcomes is empty; send at least one"));
    }
    checks::count(body.outcomes.len(), &state.limits)?;
    let at = now();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (place, OutcomeBody { request, index, value }) in body.outcomes.into_iter().enumerate() {
        match find(&state.runs.runs, &run, &request, index as usize) {
            None => unknown.push(place),
            Some(matched) => known.push(Outcome { request, place: index, value: value.number(), matched, at }),
        }
    }
    let state = &state.runs;
    // Held until the run knows what was committed, so that what it says it knows is all there is up to some outcome.
    let _one_after_another = state.outcomes.lock().await;
    let (new, last) = state.store.add_outcomes(run.clone(), known.clone()).await?;
    let added: Vec<_> = known
        .into_iter()
        .zip(&new)
        .filter(|(_, new)| **new)
        .map(|(outcome, _)| (outcome.matched, outcome.value))
        .collect();
    let (accepted, repeated) = (added.len(), new.len() - added.len());
    if accepted > 0 {
        state.runs.add_outcomes(&run, &added, last, at);
    }
    Ok(Json(OutcomesReply { accepted, repeated, unknown }))
}

/// The reward of a sample, by any of the ids that its request or its job goes by.
fn find(runs: &Runs, run: &RunName, id: &str, index: usize) -> Option<Matched> {
    let known = |id: &str| runs.find(run, id, index);
    known(id)
        .or_else(|| known(request_of(id)?))
        .or_else(|| scored_together(index).find_map(|first| runs.find(run, &rows_id(id, first as u64), index - first)))
}
