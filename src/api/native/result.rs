//! What every scoring route gives back for a sample.

use std::collections::{BTreeMap, BTreeSet};

use karat_engine::engine::{Refusal, SampleReport, Usage};
use karat_rules::{
    domain::{Cut, Reward},
    head::TokenReward,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::problem::cut;

/// What can be added to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Include {
    /// The score of each ensemble member.
    Members,
    /// The score of each objective; of a composite, the reward of each of its models.
    Objectives,
    /// The scores and rewards of the response's steps.
    Steps,
    /// The rewards of the response's tokens.
    Tokens,
    /// Where the reward lies among those of the request's run, or of its task, on `POST /v1/score`.
    Percentile,
    /// The quantiles of the reward's distribution.
    Quantiles,
}

/// What became of one sample.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "{T}OrRefused", description = "What became of one sample.")]
pub(super) enum Outcome<T> {
    /// It was scored.
    Scored(T),
    /// It can't be scored, and `on_refused` spares the others.
    Refused(RefusedResult),
}

/// A sample that can't be scored.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RefusedResult {
    /// The sample's place in the request, counted from 0.
    index: usize,
    /// The number that `on_refused` states, or null.
    reward: Option<Reward>,
    /// What is wrong with the sample and what to change.
    refused: String,
}

impl<T> Outcome<T> {
    pub(super) fn refused(refusal: Refusal) -> Self {
        let Refusal { index, reason, reward } = refusal;
        Self::Refused(RefusedResult { index, reward, refused: cut(reason) })
    }
}

/// The reward of one sample.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SampleResult {
    /// The sample's place in the request, counted from 0.
    index: usize,
    /// The aggregate after all transforms.
    reward: Reward,
    /// The aggregate before any transform.
    raw: Reward,
    /// What the ensemble says, whatever the aggregation.
    ensemble: EnsembleBody,
    /// The score of each objective, if `include` asks for it and there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    objectives: Option<BTreeMap<String, Reward>>,
    /// The response's steps, if `include` asks for them and the model has a process head.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Box<StepsBody>>,
    /// The response's tokens, if `include` asks for them and the model has a token head.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_rewards: Option<Vec<TokenReward>>,
    /// The share of the rewards that the model gave before in the run, or for its task, and that lie below this one, from 0
    /// to 1, if `include` asks for it: rewards of unlike tasks are put on one scale by it. Null where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<Option<f64>>,
    /// How much edits of the response that shouldn't matter change the mean of the members, where the aggregation weighs by
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sensitivity: Option<f64>,
    /// Quantiles of the reward's distribution before any transform, by ascending level, if `include` asks for them and the
    /// model has a quantile head.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantiles: Option<Vec<QuantileBody>>,
    /// The length in tokens, after any truncation; for a composite, summed over its models.
    tokens: usize,
    /// Whether anything was cut.
    truncated: bool,
    /// What was cut; left out when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

/// What an ensemble says about one sample. Of a model with one member, mean and worst case are its score.
#[derive(Debug, Serialize, JsonSchema)]
struct EnsembleBody {
    /// The mean of the members.
    mean: Reward,
    /// The lowest member.
    worst_case: Reward,
    /// The population variance of the members.
    variance: Reward,
    /// Each member's score, if `include` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<Reward>>,
}

/// The steps of one response.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StepsBody {
    /// The score of each step, as the head gives it.
    pub(super) scores: Vec<f64>,
    /// The reward that the transforms made of each step; left out when there are no transforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rewards: Option<Vec<f64>>,
    /// What a policy still earns from each step on: that step's reward and all later ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) returns_to_go: Option<Vec<f64>>,
}

/// A quantile of a distribution of rewards.
#[derive(Debug, Serialize, JsonSchema)]
struct QuantileBody {
    /// Its level, between 0 and 1: the share of rewards that are expected to be lower.
    level: f64,
    /// Its value.
    reward: Reward,
}

impl SampleResult {
    pub(super) fn new(index: usize, mut sample: SampleReport, include: &BTreeSet<Include>) -> Self {
        let detail = sample.take_detail();
        let wanted = |what| include.contains(&what);
        let step_rewards = detail.step_rewards.map(|steps| (steps.rewards, steps.returns_to_go)).unzip();
        let steps =
            detail.steps.map(|scores| StepsBody { scores, rewards: step_rewards.0, returns_to_go: step_rewards.1 });
        let objectives = (!detail.objectives.is_empty()).then(|| detail.objectives.into_iter().collect());
        let quantile = |(level, reward)| QuantileBody { level, reward };
        let quantiles = detail.quantiles.map(|quantiles| quantiles.into_iter().map(quantile).collect());
        Self {
            index,
            reward: sample.reward,
            raw: sample.raw,
            ensemble: EnsembleBody {
                mean: sample.ensemble.mean,
                worst_case: sample.ensemble.worst_case,
                variance: sample.ensemble.variance,
                members: wanted(Include::Members).then_some(sample.ensemble.members),
            },
            objectives: objectives.filter(|_| wanted(Include::Objectives)),
            steps: steps.filter(|_| wanted(Include::Steps)).map(Box::new),
            token_rewards: detail.tokens.filter(|_| wanted(Include::Tokens)),
            percentile: wanted(Include::Percentile).then_some(None),
            sensitivity: detail.sensitivity,
            quantiles: quantiles.filter(|_| wanted(Include::Quantiles)),
            tokens: sample.tokens,
            truncated: sample.cut.is_cut(),
            cut: sample.cut.is_cut().then_some(sample.cut),
        }
    }
}

impl SampleResult {
    /// The same with where its reward lies among others, if it was asked for.
    pub(super) fn with_percentile(mut self, percentile: Option<f64>) -> Self {
        self.percentile = self.percentile.map(|_| percentile);
        self
    }
}

/// What a request cost.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct UsageBody {
    /// The tokens of all samples.
    tokens: usize,
    /// Those of them that needed no forward pass of their own.
    cached_tokens: usize,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self { tokens: usage.tokens, cached_tokens: usage.cached_tokens }
    }
}
