//! `POST /v1/process`: rewards for the steps of a solution.

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use indexmap::IndexMap;
use karat_engine::engine::SampleReport;
use karat_rules::{
    domain::{Cut, Message, Reward},
    numeric::Reduction,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Call, OwnBody},
    envelope::{Envelope, each},
    request::{answer, samples, turns},
    result::Outcome,
    turn::optional_texts,
};
use crate::api::{
    AppState,
    body::objects,
    problem::{Problem, invalid},
    reply::Reply,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/process", post_with(process, describe))
}

/// Solutions to score step by step.
#[derive(Debug, Deserialize, JsonSchema)]
struct ProcessBody {
    /// The solutions, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    inputs: Vec<Solution>,
}

impl OwnBody for ProcessBody {
    fn inputs(&self) -> usize {
        self.inputs.len()
    }
}

/// One solution: a list of steps, or a text and what separates its steps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Solution {
    /// What was asked, as a single turn.
    #[serde(default)]
    prompt: Option<String>,
    /// What was said before the response, oldest first; instead of `prompt`.
    #[serde(default, deserialize_with = "optional_texts")]
    messages: Option<Vec<Message>>,
    /// The steps, in order.
    #[serde(default)]
    steps: Option<Vec<String>>,
    /// The whole solution; instead of `steps`.
    #[serde(default)]
    response: Option<String>,
    /// What separates the steps of `response`, such as a blank line; steps without text are left out. Without it the
    /// response must hold the model's own step marks.
    #[serde(default)]
    split: Option<String>,
}

/// The steps' rewards.
#[derive(Debug, Serialize, JsonSchema)]
struct ProcessResponse {
    /// One result for each solution.
    results: Vec<Outcome<ProcessResult>>,
}

/// One solution's steps.
#[derive(Debug, Serialize, JsonSchema)]
struct ProcessResult {
    /// The solution's place in the request, counted from 0.
    index: usize,
    /// The score of each step.
    scores: Vec<f64>,
    /// What each reduction makes of the scores; one that has no finite value is left out.
    reductions: IndexMap<String, f64>,
    /// The reward of each step after the transforms.
    rewards: Vec<f64>,
    /// What a policy still earns from each step on: that step's reward and all later ones.
    returns_to_go: Vec<f64>,
    /// The reward of the whole solution after the transforms.
    reward: Reward,
    /// The head's own reduction, before any transform.
    raw: Reward,
    /// The length in tokens, after any truncation.
    tokens: usize,
    /// Whether anything was cut.
    truncated: bool,
    /// What was cut; left out when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("process").tag("Scoring").summary("Score the steps of solutions").description(
        "For models with a process head: the score of each step, every reduction of them, and the rewards that \
         transforms such as `delta` and `clip_then_delta` make of them.",
    )
}

async fn process(
    Call { state, id, run, body, options }: Call<ProcessBody>,
) -> Result<Reply<Envelope<ProcessResponse>>, Problem> {
    let name = options.model().to_owned();
    let join = |steps: &[String]| {
        let model = name.parse().ok().and_then(|name| state.engine.model(&name).ok());
        model.map_or(Ok(None), |model| model.join_steps(steps))
    };
    // An unknown model is told as such, not as one without steps.
    if let Ok(name) = name.parse() {
        state.engine.model(&name)?;
    }
    let steps_sent: Vec<Option<usize>> =
        body.inputs.iter().map(|solution| solution.steps.as_ref().map(Vec::len)).collect();
    let samples = samples("inputs", body.inputs, |solution| {
        let response = match (solution.steps, solution.response, solution.split) {
            (Some(steps), None, None) => Some(steps),
            (None, Some(response), Some(separator)) if !separator.is_empty() => {
                let steps = response.split(separator.as_str()).filter(|step| !step.trim().is_empty());
                Some(steps.map(str::to_owned).collect())
            }
            (None, Some(response), None) => return answer(&turns(solution.prompt, solution.messages)?, response),
            _ => None,
        };
        let steps = response.ok_or("write \"steps\", or \"response\" with what separates its steps in \"split\"")?;
        if steps.iter().any(|step| step.trim().is_empty()) || steps.is_empty() {
            return Err("there must be at least one step, and each must hold text".to_owned());
        }
        let response = join(&steps).map_err(|error| error.to_string())?.ok_or_else(|| {
            format!(
                "the model {name:?} reads no steps; choose a model with a process head, and text.step_mark or steps"
            )
        })?;
        answer(&turns(solution.prompt, solution.messages)?, response)
    });
    let request = options.into_request(samples, false)?;
    let report = state.score(run.as_ref(), &id, request).await?;
    Envelope::reply(id, report, |reports| {
        let results = each(reports, |(index, sample)| {
            let found = sample.detail().steps.as_ref().map(Vec::len);
            match steps_sent[index].zip(found) {
                Some((sent, found)) if found > sent || (found < sent && !sample.cut.is_cut()) => Err(invalid(format!(
                    "inputs[{index}]: the model finds {found} steps in {sent}, so one holds or changes what ends a step; \
                     send it without that"
                ))
                .at(index)),
                _ => result((index, sample)),
            }
        })?;
        Ok(ProcessResponse { results })
    })
}

fn result((index, mut sample): (usize, SampleReport)) -> Result<ProcessResult, Problem> {
    let detail = sample.take_detail();
    let scores = detail.steps.ok_or_else(|| {
        invalid("this model gives one score a response; choose a model with a process head, or use POST /v1/score")
    })?;
    let reductions = Reduction::ALL.iter().filter_map(|reduction| {
        let value = reduction.apply(&scores).ok().filter(|value| value.is_finite())?;
        Some((reduction.name().to_owned(), value))
    });
    let (rewards, returns_to_go) = match detail.step_rewards {
        Some(steps) => (steps.rewards, steps.returns_to_go),
        None => {
            let untouched = karat_rules::transform::Signal::Steps(scores.clone());
            (scores.clone(), untouched.returns_to_go())
        }
    };
    Ok(ProcessResult {
        index,
        reductions: reductions.collect(),
        scores,
        rewards,
        returns_to_go,
        reward: sample.reward,
        raw: sample.raw,
        tokens: sample.tokens,
        truncated: sample.cut.is_cut(),
        cut: sample.cut.is_cut().then_some(sample.cut),
    })
}
