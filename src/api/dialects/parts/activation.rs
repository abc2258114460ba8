//! Scores between 0 and 1 for the dialects whose clients expect them.

use karat_rules::numeric::sigmoid;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Scored, Scores};

/// Whether a score passes through the logistic function before it is sent.
///
/// A model of karat gives one reward a sample, which is one label: a softmax over it would make every score 1, so there
/// is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Activation {
    /// The reward as it is.
    None,
    /// `1 / (1 + exp(-reward))`.
    Sigmoid,
}

impl Activation {
    /// Sigmoid if it is wanted.
    pub(crate) fn sigmoid_if(wanted: bool) -> Self {
        if wanted { Self::Sigmoid } else { Self::None }
    }

    /// The activation of a report's rewards: what is a probability already is not made one again.
    pub(crate) fn of(self, report: &Scores) -> Self {
        if report.probabilities { Self::None } else { self }
    }

    /// What is sent of a sample's reward. The number that a request states for one that can't be scored stays as it is.
    pub(crate) fn apply(self, scored: &Scored) -> f64 {
        let reward = scored.reward.get();
        match self {
            Self::Sigmoid if scored.refused.is_some() => reward,
            Self::None => reward,
            Self::Sigmoid => sigmoid(reward),
        }
    }
}
