//! `POST /v1/score`: rewards for a list of samples.

use std::collections::BTreeSet;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Call, OwnBody},
    envelope::{Envelope, each},
    request::{Input, samples},
    result::{Include, Outcome, SampleResult},
};
use crate::api::{AppState, body::objects, dialects::SharedPath, images::ImageSource, problem::Problem, reply::Reply};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/score", post_with(SharedPath::new("/v1/score", score), describe))
}

/// Samples to score with one model.
#[derive(Debug, Deserialize, JsonSchema)]
struct ScoreBody {
    /// What to score, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    inputs: Vec<Input>,
    /// Whether the inputs are candidates for one prompt, which rules that compare responses need.
    #[serde(default)]
    group: bool,
    /// What to add to each result.
    #[serde(default)]
    include: BTreeSet<Include>,
}

impl OwnBody for ScoreBody {
    fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn images(&mut self) -> Vec<&mut ImageSource> {
        self.inputs.iter_mut().flat_map(Input::images).collect()
    }
}

/// The rewards, in the order of the inputs.
#[derive(Debug, Serialize, JsonSchema)]
struct ScoreResponse {
    /// One result for each input.
    results: Vec<Outcome<SampleResult>>,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("score").tag("Scoring").summary("Score responses").description(
        "Scores each input with one model. The reply carries `Server-Timing` (tokenise, queue, infer, total, in \
         milliseconds) and `X-Request-Id`.",
    )
}

async fn score(Call { state, id, body, options }: Call<ScoreBody>) -> Result<Reply<Envelope<ScoreResponse>>, Problem> {
    let samples = samples("inputs", body.inputs, Input::into_sample);
    let request = options.into_request(samples, body.group)?;
    let report = state.score(request).await?;
    Envelope::reply(id, report, |reports| {
        let results = each(reports, |(index, sample)| Ok(SampleResult::new(index, sample, &body.include)))?;
        Ok(ScoreResponse { results })
    })
}
