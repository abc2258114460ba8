//! What a client gets back, before a dialect gives it its shape.

use std::{sync::Arc, time::Duration};

use karat_rules::{
    domain::{Cut, ModelName, ModelVersion, Reward},
    head::{HeadOutput, TokenReward},
};

use super::{Facts, Refusal};
use crate::schedule::PassRecord;

/// The scores of one request, in the order of its samples; [`Self::into_outcomes`] puts what was refused among them.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreReport {
    /// The model that scored.
    pub model: ModelName,
    /// Exactly which one.
    pub version: ModelVersion,
    /// One result for each sample that was scored, which is every one unless the request spares others.
    pub results: Vec<SampleReport>,
    /// What is known of each of these samples' texts.
    pub facts: Vec<Facts>,
    /// Those that weren't, in their order.
    pub refused: Vec<Refusal>,
    /// Whether every reward is a probability already, from 0 to 1, or an aggregate of such.
    pub probabilities: bool,
    /// What it cost.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// The forward passes that it waited for.
    pub passes: Vec<Arc<PassRecord>>,
}

/// The score of one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleReport {
    /// The aggregate after all transforms.
    pub reward: Reward,
    /// The aggregate before any transform.
    pub raw: Reward,
    /// What the members say.
    pub ensemble: EnsembleReport,
    /// What else the head says, if it says more: see [`Self::detail`].
    pub detail: Option<Box<Detail>>,
    /// The sample's length in tokens; for a composite, summed over its models.
    pub tokens: usize,
    /// What truncation removed; for a composite, the most that any of its models lost.
    pub cut: Cut,
    /// Whether a transform holds the reward at a bound, as a clip does.
    pub at_bound: bool,
}

/// What a head says about one sample beyond its reward: nothing, of most models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detail {
    /// The score of each named objective; of a composite, the reward of each of its models.
    pub objectives: Vec<(String, Reward)>,
    /// The score of each step or segment of the response, as the head gives it.
    pub steps: Option<Vec<f64>>,
    /// The rewards that the transforms made of the steps, where there are steps and transforms.
    pub step_rewards: Option<StepRewards>,
    /// The reward of each token of the response that stands for text.
    pub tokens: Option<Vec<TokenReward>>,
    /// The preference for the first of two responses, shown first and shown second.
    pub orders: Option<[f64; 2]>,
    /// A vector that tells the response from others.
    pub embedding: Option<Vec<f64>>,
    /// How much edits that shouldn't matter change the members' mean, where the aggregation weighs by it.
    pub sensitivity: Option<f64>,
    /// Quantiles of the distribution of its reward, before any transform: levels and values.
    pub quantiles: Option<Vec<(f64, Reward)>>,
}

/// What a chain of transforms made of a response's steps.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRewards {
    /// The reward of each step.
    pub rewards: Vec<f64>,
    /// What a policy still earns from each step on.
    pub returns_to_go: Vec<f64>,
}

/// What most heads say beyond the reward.
static NO_DETAIL: Detail = Detail {
    objectives: Vec::new(),
    steps: None,
    step_rewards: None,
    tokens: None,
    orders: None,
    embedding: None,
    sensitivity: None,
    quantiles: None,
};

impl SampleReport {
    /// What else the head says, however little.
    #[must_use]
    pub fn detail(&self) -> &Detail {
        self.detail.as_deref().unwrap_or(&NO_DETAIL)
    }

    /// The same, taken out.
    #[must_use]
    pub fn take_detail(&mut self) -> Detail {
        self.detail.take().map_or_else(Detail::default, |detail| *detail)
    }

    /// A report in which one number stands for every score, in the shape of another of the same model.
    #[must_use]
    pub fn stated(reward: Reward, like: Option<&Self>) -> Self {
        let members = like.map_or(1, |like| like.ensemble.members.len());
        let names = like.map_or(&[][..], |like| &like.detail().objectives);
        let objectives = names.iter().map(|(name, _)| (name.clone(), reward)).collect();
        Self {
            reward,
            raw: reward,
            ensemble: EnsembleReport {
                mean: reward,
                worst_case: reward,
                variance: Reward::ZERO,
                members: vec![reward; members],
            },
            detail: Detail { objectives, ..Detail::default() }.if_any(),
            tokens: 0,
            cut: Cut::default(),
            at_bound: false,
        }
    }
}

impl Detail {
    /// What an output says, if it says more than scores.
    pub(super) fn of(output: &HeadOutput) -> Option<Box<Self>> {
        let objectives = match output {
            HeadOutput::Objectives { names, scores, .. } => names.iter().cloned().zip(scores.iter().copied()).collect(),
            _ => Vec::new(),
        };
        let tokens = match output {
            HeadOutput::Tokens { tokens, .. } => Some(tokens.clone()),
            _ => None,
        };
        let orders = match output {
            HeadOutput::Pairwise { orders, .. } => *orders,
            _ => None,
        };
        let embedding = match output {
            HeadOutput::Embedding { values, .. } => Some(values.clone()),
            _ => None,
        };
        let quantiles = match output {
            HeadOutput::Quantiles { levels, values, .. } => {
                Some(levels.iter().copied().zip(values.iter().copied()).collect())
            }
            _ => None,
        };
        let steps = output.steps().map(<[f64]>::to_vec);
        Self { objectives, steps, step_rewards: None, tokens, orders, embedding, sensitivity: None, quantiles }.if_any()
    }

    /// Itself, unless it is empty.
    pub(super) fn if_any(self) -> Option<Box<Self>> {
        (self != NO_DETAIL).then(|| Box::new(self))
    }
}

/// What an ensemble says about one sample, whatever the aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleReport {
    /// The mean of the members.
    pub mean: Reward,
    /// The lowest member.
    pub worst_case: Reward,
    /// The population variance of the members: how much they disagree.
    pub variance: Reward,
    /// Each member's score, in the manifest's order.
    pub members: Vec<Reward>,
}

/// Vectors that tell the samples of a request apart, in the order of its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// The model that embedded.
    pub model: ModelName,
    /// Exactly which one.
    pub version: ModelVersion,
    /// One vector a sample, all equally long.
    pub vectors: Vec<Vec<f64>>,
    /// What truncation removed of each sample.
    pub cuts: Vec<Cut>,
    /// What it cost.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// The forward passes that it waited for.
    pub passes: Vec<Arc<PassRecord>>,
}

/// What a request cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of all samples and models.
    pub tokens: usize,
    /// Those of them that needed no forward pass of their own.
    pub cached_tokens: usize,
}

/// How long the stages of a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Rendering and tokenising.
    pub tokenize: Duration,
    /// The longest wait of a sample for a worker.
    pub queue: Duration,
    /// The longest forward pass that held a sample.
    pub infer: Duration,
    /// From the request's start to its end.
    pub total: Duration,
}

impl Timings {
    /// The longer of each stage, of two that ran side by side.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            tokenize: self.tokenize.max(other.tokenize),
            queue: self.queue.max(other.queue),
            infer: self.infer.max(other.infer),
            total: self.total.max(other.total),
        }
    }
}
