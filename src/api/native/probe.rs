//! `POST /v1/probe`: how much a reward hangs on what shouldn't matter.

use std::collections::BTreeSet;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use karat_engine::engine::SampleReport;
use karat_rules::{
    aggregate::confidence,
    domain::{NotNegative, Sample},
    edit,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Call, OwnBody},
    envelope::Envelope,
    request::{Input, samples},
    result::{Include, SampleResult},
};
use crate::api::{
    AppState,
    body::objects,
    problem::{Problem, invalid},
    reply::Reply,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/probe", post_with(probe, describe))
}

/// Samples to score beside edits of their responses.
#[derive(Debug, Deserialize, JsonSchema)]
struct ProbeBody {
    /// What to score, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    inputs: Vec<Input>,
    /// Other responses that should get the same reward, a list for each input; instead of karat's own edits: the case of
    /// first letters, white space, and the order of lists.
    #[serde(default)]
    variants: Option<Vec<Vec<String>>>,
    /// The factor of the sensitivity in the confidence, at least 0.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0))]
    scale: f64,
    /// The reward that sensitivity draws towards.
    #[serde(default)]
    toward: f64,
    /// What to add to each result.
    #[serde(default)]
    include: BTreeSet<Include>,
}

fn one() -> f64 {
    1.0
}

impl OwnBody for ProbeBody {
    fn inputs(&self) -> usize {
        let variants = self.variants.as_ref().map(|lists| lists.iter().map(Vec::len).sum());
        self.inputs.len().saturating_add(variants.unwrap_or(self.inputs.len().saturating_mul(edit::ALL.len())))
    }
}

/// The rewards beside those of the edits.
#[derive(Debug, Serialize, JsonSchema)]
struct ProbeResponse {
    /// One result for each input.
    results: Vec<ProbeResult>,
}

/// One sample and its edits.
#[derive(Debug, Serialize, JsonSchema)]
struct ProbeResult {
    /// The sample itself.
    #[serde(flatten)]
    result: SampleResult,
    /// The largest change of the reward; null where no edit changes the response.
    sensitivity: Option<f64>,
    /// `exp(-scale * sensitivity)`, from 0 to 1: the weight of `confidence_weighted` with this uncertainty; null without a
    /// sensitivity.
    confidence: Option<f64>,
    /// The reward with that weight: `toward + (reward - toward) * confidence`; null without a sensitivity.
    weighted: Option<f64>,
    /// The rewards of the edits.
    edits: Vec<EditResult>,
}

/// One edit of a sample.
#[derive(Debug, Serialize, JsonSchema)]
struct EditResult {
    /// Which edit, or the place among the variants that were sent.
    edit: String,
    /// The reward.
    reward: f64,
    /// The reward less that of the sample itself.
    change: f64,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("probe").tag("Scoring").summary("Score responses beside edits that shouldn't matter").description(
        "A reward that changes with the case of a letter hangs on something beside what is said. Each input is scored with \
         its edits; an edit that leaves a response as it is isn't scored.",
    )
}

async fn probe(call: Call<ProbeBody>) -> Result<Reply<Envelope<ProbeResponse>>, Problem> {
    let Call { state, id, run, body, options } = call;
    let ProbeBody { inputs, variants, scale, toward, include } = body;
    let scale = NotNegative::new(scale).map_err(|reason| invalid(format!("scale: {reason}")))?;
    if options.has_lists() {
        return Err(invalid("edits are scored by themselves: leave counts, margins and successes out"));
    }
    if variants.as_ref().is_some_and(|lists| lists.len() != inputs.len()) {
        return Err(invalid("variants: send a list for each input, empty where there is none"));
    }
    let drafts = samples("inputs", inputs, Input::into_sample).into_iter().enumerate();
    let samples: Vec<Sample> =
        drafts.map(|(index, draft)| draft.map_err(|reason| invalid(reason).at(index))).collect::<Result<_, _>>()?;
    let mut all = samples.clone();
    let mut edits: Vec<Vec<(String, usize)>> = Vec::with_capacity(samples.len());
    let mut variants = variants.map(Vec::into_iter);
    for (index, sample) in samples.iter().enumerate() {
        let edited = edited(index, sample, variants.as_mut().and_then(Iterator::next))?;
        edits.push(edited.into_iter().map(|(name, sample)| (name, push(&mut all, sample))).collect());
    }
    let own = options.clone().into_whole_request(samples.into_iter().map(Ok).collect())?;
    if state.engine.needs_sensitivities(&own) {
        return Err(invalid(
            "aggregate: this one weighs by sensitivity by itself, on POST /v1/score; here, name what it is the \
             sensitivity of, such as \"mean\"",
        ));
    }
    // Only the samples themselves are the run's: edits are made by karat.
    let own = state.score(run.as_ref(), &id, own).await?;
    let report = state.score(None, &id, options.into_whole_request(all.into_iter().map(Ok).collect())?).await?;
    let rewards: Vec<f64> = report.results.iter().map(|sample| sample.reward.get()).collect();
    Envelope::reply(id, own, |reports| {
        // Nothing is refused apart from the rest.
        let results = reports.into_iter().filter_map(Result::ok).zip(edits).enumerate();
        let results = results
            .map(|(index, (report, edits))| tell(index, report, &edits, &rewards, Weight { scale, toward }, &include));
        Ok(ProbeResponse { results: results.collect() })
    })
}

fn push(all: &mut Vec<Sample>, sample: Sample) -> usize {
    all.push(sample);
    all.len() - 1
}

/// A sample's edits, or its variants, by name.
fn edited(index: usize, sample: &Sample, variants: Option<Vec<String>>) -> Result<Vec<(String, Sample)>, Problem> {
    let (Sample::Conversation(conversation), Some(edits)) = (sample, edit::of(sample)) else {
        let detail =
            format!("inputs[{index}]: only a prompt and a response, or messages, can be edited; send one of these");
        return Err(invalid(detail).at(index));
    };
    let Some(variants) = variants else {
        return Ok(edits.into_iter().map(|(name, sample)| (name.to_owned(), sample)).collect());
    };
    let variants = variants.into_iter().enumerate().map(|(place, variant)| {
        let blank = |_| invalid(format!("variants[{index}][{place}] is blank")).at(index);
        Ok::<_, Problem>((place.to_string(), Sample::Conversation(conversation.with_response(variant).map_err(blank)?)))
    });
    variants.collect()
}

/// How sensitivity weighs a reward.
#[derive(Debug, Clone, Copy)]
struct Weight {
    scale: NotNegative,
    toward: f64,
}

fn tell(
    index: usize,
    report: SampleReport,
    edits: &[(String, usize)],
    rewards: &[f64],
    weight: Weight,
    include: &BTreeSet<Include>,
) -> ProbeResult {
    let reward = report.reward.get();
    let edits: Vec<EditResult> = edits
        .iter()
        .map(|(edit, place)| {
            let edited = rewards[*place];
            EditResult { edit: edit.clone(), reward: edited, change: (edited - reward).clamp(f64::MIN, f64::MAX) }
        })
        .collect();
    let sensitivity = edits.iter().map(|edit| edit.change.abs()).max_by(f64::total_cmp);
    let confidence = sensitivity.map(|sensitivity| confidence(weight.scale, sensitivity));
    ProbeResult {
        result: SampleResult::new(index, report, include),
        sensitivity,
        confidence,
        weighted: confidence.map(|confidence| reward * confidence + weight.toward * (1.0 - confidence)),
        edits,
    }
}
