//! `POST /v1/score`: rewards for a list of samples.

use std::collections::BTreeSet;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use karat_engine::engine::{Draft, ScoreReport, ScoreRequest};
use karat_rules::domain::Sample;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Call, OwnBody},
    envelope::{Envelope, each},
    request::{Input, samples},
    result::{Include, Outcome, SampleResult},
};
use crate::api::{
    AppState,
    body::objects,
    dialects::SharedPath,
    images::ImageSource,
    problem::{Problem, invalid},
    reply::Reply,
    runs::RunTag,
};

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
    /// False to be answered at once with the scores that are known: the others are null, and are known when they are asked
    /// for again some time later. Of a group whose scores aren't all known, all are null.
    #[serde(default = "yes")]
    wait: bool,
}

fn yes() -> bool {
    true
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
    results: Vec<ScoreResult>,
}

/// A result, or that there is none yet.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum ScoreResult {
    /// What became of the sample.
    Known(Outcome<SampleResult>),
    /// No reward yet, where the request didn't wait.
    Pending(PendingResult),
}

/// A sample whose score isn't known yet.
#[derive(Debug, Serialize, JsonSchema)]
struct PendingResult {
    /// The sample's place in the request, counted from 0.
    index: usize,
    /// Always null: not known is not 0.
    reward: Option<f64>,
    /// Always null.
    raw: Option<f64>,
    /// Always true: ask again later.
    pending: bool,
}

impl PendingResult {
    fn at(index: usize) -> ScoreResult {
        ScoreResult::Pending(Self { index, reward: None, raw: None, pending: true })
    }
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("score").tag("Scoring").summary("Score responses").description(
        "Scores each input with one model. The reply carries `Server-Timing` (tokenise, queue, infer, total, in \
         milliseconds) and `X-Request-Id`.",
    )
}

async fn score(call: Call<ScoreBody>) -> Result<Reply<Envelope<ScoreResponse>>, Problem> {
    let Call { state, id, run, body, options } = call;
    let percentiles = body.include.contains(&Include::Percentile);
    if percentiles && run.is_none() {
        return Err(invalid("include: a percentile is that among the rewards of a run; name the run"));
    }
    if percentiles {
        // Among the rewards of all requests that were answered before.
        state.runs.settle().await;
    }
    let grouped = body.group;
    if !body.wait && (options.has_lists() || options.spares_others()) {
        return Err(invalid(
            "wait: what isn't waited for takes no counts, margins, successes and on_refused; leave them out",
        ));
    }
    let samples = samples("inputs", body.inputs, Input::into_sample);
    let known = if body.wait {
        None
    } else {
        let request = options.clone().into_request(samples.clone(), grouped)?;
        if state.engine.needs_sensitivities(&request) {
            return Err(invalid(
                "wait: a reward that is weighed by its sensitivity waits for the scores of its edits; leave it out, or \
                 choose another aggregation",
            ));
        }
        Some(ask(&state, request, grouped).await?)
    };
    let count = samples.len();
    let (report, places) = match known {
        None => (state.score(run.as_ref(), &id, options.into_request(samples, grouped)?).await?, None),
        Some(places) if places.is_empty() => {
            let version = state.engine.model(&options.model_name()?)?.version.clone();
            let model = options.model_name()?;
            let results = (0..count).map(PendingResult::at).collect();
            return Ok(Envelope::unscored(id, model, version, ScoreResponse { results }));
        }
        Some(places) => {
            let kept: Vec<Draft> = places.iter().map(|place| samples[*place].clone()).collect();
            let request = options.into_request(kept, grouped)?;
            (state.score_known(run.as_ref(), &id, request, places.clone()).await?, Some(places))
        }
    };
    let percentiles = percentiles.then(|| percentiles_of(&state, run.as_ref(), &report)).flatten();
    Envelope::reply(id, report, |reports| {
        let mut percentiles = percentiles.map(Vec::into_iter);
        let scored = each(reports, |(index, sample)| {
            let place = places.as_ref().map_or(index, |places| places[index]);
            let percentile = percentiles.as_mut().and_then(Iterator::next);
            Ok(SampleResult::new(place, sample, &body.include).with_percentile(percentile))
        })?;
        let scored = scored.into_iter().map(ScoreResult::Known);
        let results = match &places {
            None => scored.collect(),
            Some(places) => {
                let mut results: Vec<ScoreResult> = (0..count).map(PendingResult::at).collect();
                places.iter().zip(scored).for_each(|(place, known)| results[*place] = known);
                results
            }
        };
        Ok(ScoreResponse { results })
    })
}

/// The places of the samples whose scores are known; the others are queued.
async fn ask(state: &AppState, request: ScoreRequest, grouped: bool) -> Result<Vec<usize>, Problem> {
    if !state.engine.keeps_scores() {
        return Err(invalid("wait: the server keeps no scores (--cache-mb 0), so that none would ever be known"));
    }
    let request = state.let_in(request)?;
    state.engine.check_scores(&request)?;
    let known = state.engine.known(&request).await?;
    let (places, missing): (Vec<usize>, Vec<usize>) = (0..known.len()).partition(|place| known[*place]);
    // The oldest first, so that the newest is the last of the latest request.
    let samples: Vec<Sample> = missing.iter().map(|place| request.samples()[*place].clone()).collect();
    for sample in samples {
        state.runs.backlog.add(&state.visit, request.alone(sample));
    }
    Ok(if grouped && !missing.is_empty() { Vec::new() } else { places })
}

/// Where each reward lies among those that its run, or its task, had before; none where it had none.
fn percentiles_of(state: &AppState, run: Option<&RunTag>, report: &ScoreReport) -> Option<Vec<f64>> {
    let tag = run?;
    let rewards: Vec<f64> = report.results.iter().map(|sample| sample.reward.get()).collect();
    state.runs.runs.percentiles(&tag.run, &report.model, tag.task.as_ref(), &rewards)
}
