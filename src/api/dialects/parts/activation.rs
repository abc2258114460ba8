//! Scores between 0 and 1 for the dialects whose clients expect them.

use karat_engine::engine::ScoreReport;
use karat_rules::numeric::sigmoid;
use schemars::JsonSchema;
use serde::Deserialize;

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
    pub(crate) fn of(self, report: &ScoreReport) -> Self {
        if report.probabilities { Self::None } else { self }
    }

    pub(crate) fn apply(self, reward: f64) -> f64 {
        match self {
            Self::None => reward,
            Self::Sigmoid => sigmoid(reward),
        }
    }
}
