//! What heads make of a sample.

use std::{ops::Range, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::Reward;

/// What a head makes of one sample.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadOutput {
    /// One score of each ensemble member, at least one.
    Members(Vec<Reward>),
    /// A mean and a standard deviation of each ensemble member, at least one.
    Gaussian {
        /// The members' means.
        means: Vec<Reward>,
        /// The members' standard deviations, finite and at least 0.
        deviations: Vec<f64>,
    },
    /// One score for each named objective.
    Objectives {
        /// The objectives' names.
        names: Arc<[String]>,
        /// Their scores, in the order of the names.
        scores: Vec<Reward>,
        /// The one reward, where the head itself combines the objectives.
        reward: Option<Reward>,
    },
    /// Quantiles of a distribution of rewards.
    Quantiles {
        /// Their levels, ascending.
        levels: Arc<[f64]>,
        /// Their values, in the order of the levels.
        values: Vec<Reward>,
        /// The one reward.
        reward: Reward,
    },
    /// A reward for each token of the response that stands for text.
    Tokens {
        /// The tokens' rewards, in order, at least one.
        tokens: Vec<TokenReward>,
        /// The one reward.
        reward: Reward,
    },
    /// A probability for each step of the response.
    Steps {
        /// The steps' probabilities, in order, at least one.
        scores: Vec<f64>,
        /// The one reward, by the head's reduction.
        reward: Reward,
    },
    /// Several scores for each segment of the response.
    Segments {
        /// The names of the scores.
        names: Arc<[String]>,
        /// For each segment, its scores in the order of the names.
        scores: Vec<Vec<f64>>,
        /// For each segment, the weighted sum of its scores.
        rewards: Vec<f64>,
        /// The sum over the segments.
        reward: Reward,
    },
    /// The probability that the first of two responses in one input is the better one.
    Pairwise {
        /// From 0 to 1.
        preference: Reward,
        /// What it is the mean of, where the two were shown in both orders: with the first response first, and second.
        orders: Option<[f64; 2]>,
    },
    /// A vector that tells responses apart.
    Embedding {
        /// Its numbers.
        values: Vec<f64>,
        /// Its Euclidean length.
        length: Reward,
    },
}

/// The reward of one token of the response.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TokenReward {
    /// The token's place in the input, counted from 0.
    pub position: usize,
    /// The characters of the response that it stands for, in Unicode scalar values, where they are known.
    pub text: Option<Range<usize>>,
    /// Its reward.
    pub reward: f64,
    /// How much the token counts in training, where the head says so.
    pub weights: Option<TokenWeights>,
}

/// How much a token counts in the loss of a right and of a wrong response.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct TokenWeights {
    /// Its weight when the response is right, from 0 to 1.
    pub positive: f64,
    /// Its weight when the response is wrong, from 0 to 1.
    pub negative: f64,
}

impl HeadOutput {
    /// The scores that an ensemble aggregates: one for most heads, several for members and uncombined objectives.
    #[must_use]
    pub fn members(&self) -> &[Reward] {
        match self {
            Self::Members(members) | Self::Gaussian { means: members, .. } => members,
            Self::Objectives { scores, reward, .. } => reward.as_ref().map_or(scores, std::slice::from_ref),
            Self::Quantiles { reward, .. }
            | Self::Tokens { reward, .. }
            | Self::Steps { reward, .. }
            | Self::Segments { reward, .. }
            | Self::Pairwise { preference: reward, .. }
            | Self::Embedding { length: reward, .. } => std::slice::from_ref(reward),
        }
    }

    /// The standard deviation of each of [`HeadOutput::members`], where the head gives one.
    #[must_use]
    pub fn deviations(&self) -> Option<&[f64]> {
        match self {
            Self::Gaussian { deviations, .. } => Some(deviations),
            _ => None,
        }
    }

    /// The names of [`HeadOutput::members`] where they are objectives that still have to be combined.
    #[must_use]
    pub fn objectives(&self) -> Option<&Arc<[String]>> {
        match self {
            Self::Objectives { names, reward: None, .. } => Some(names),
            _ => None,
        }
    }

    /// One number for each step or segment, where the head gives them.
    #[must_use]
    pub fn steps(&self) -> Option<&[f64]> {
        match self {
            Self::Steps { scores: steps, .. } | Self::Segments { rewards: steps, .. } => Some(steps),
            _ => None,
        }
    }

    /// The memory that it takes, for caches that are bounded in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let own = match self {
            Self::Members(_) | Self::Pairwise { .. } => 0,
            Self::Embedding { values, .. } => size_of_val(values.as_slice()),
            Self::Gaussian { deviations, .. } => size_of_val(deviations.as_slice()),
            Self::Objectives { scores, .. } => size_of_val(scores.as_slice()),
            Self::Quantiles { values, .. } => size_of_val(values.as_slice()),
            Self::Tokens { tokens, .. } => size_of_val(tokens.as_slice()),
            Self::Steps { scores, .. } => size_of_val(scores.as_slice()),
            Self::Segments { scores, rewards, .. } => {
                let each: usize = scores.iter().map(|segment| size_of_val(segment.as_slice())).sum();
                size_of_val(scores.as_slice()) + each + size_of_val(rewards.as_slice())
            }
        };
        size_of::<Self>() + own + size_of_val(self.members())
    }
}
