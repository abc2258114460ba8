//! From the probabilities of a solution's steps to one number.
//!
//! The reductions of RewardMATH (Kim et al. 2024, "Evaluating Robustness of Reward Models for Mathematical
//! Reasoning"). Products go through logarithms, so that a thousand steps don't underflow on the way to a geometric
//! mean, and a probability of exactly 1 is handled where its odds are infinite.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{logit, mean, sigmoid};

/// How step probabilities `p_1 … p_K` become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The lowest: a solution is as good as its worst step.
    Min,
    /// The highest.
    Max,
    /// The product: the probability that all steps are right, if they are independent. Falls with their number, and
    /// rounds to 0 once it is below the smallest `f64`.
    Prod,
    /// The K-th root of the product.
    GeometricMean,
    /// The arithmetic mean.
    Mean,
    /// The sigmoid of the mean log-odds.
    MeanLogit,
    /// The mean of the odds `p / (1 − p)`; at least 0, without upper bound.
    MeanOdd,
    /// The last step, as a reward model of outcomes reads it.
    Last,
}

impl Reduction {
    /// Whether it makes a probability of probabilities.
    #[must_use]
    pub fn keeps_probabilities(self) -> bool {
        self != Self::MeanOdd
    }

    /// Every reduction, in the order of the documentation.
    pub const ALL: [Self; 8] =
        [Self::Min, Self::Max, Self::Prod, Self::GeometricMean, Self::Mean, Self::MeanLogit, Self::MeanOdd, Self::Last];

    /// The name in manifests, requests and replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Prod => "prod",
            Self::GeometricMean => "geometric_mean",
            Self::Mean => "mean",
            Self::MeanLogit => "mean_logit",
            Self::MeanOdd => "mean_odd",
            Self::Last => "last",
        }
    }
}

/// Why steps have no such reduction.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ReductionError {
    /// There are no steps.
    #[error("there are no steps; send at least one")]
    NoSteps,
    /// A number is no probability.
    #[error("step {step} has the score {score}, and a reduction needs probabilities from 0 to 1")]
    NotAProbability {
        /// Its place, counted from 0.
        step: usize,
        /// The number.
        score: f64,
    },
    /// `mean_logit` of steps with 0 and 1 is ∞ − ∞; `mean_odd` of a step with 1 is infinite.
    #[error(
        "step {step} has a probability of exactly {probability}, for which this reduction is not finite; choose min, \
         mean or geometric_mean"
    )]
    Infinite {
        /// Its place, counted from 0.
        step: usize,
        /// 0 or 1.
        probability: f64,
    },
}

impl Reduction {
    /// Reduces step probabilities.
    ///
    /// `mean_logit` gives its limit where a step is exactly 0 or 1: 1 when some are 1 and none is 0, and 0 when some
    /// are 0 and none is 1.
    ///
    /// # Errors
    /// When there are no steps, one is no probability, or the result would not be finite.
    pub fn apply(self, probabilities: &[f64]) -> Result<f64, ReductionError> {
        let last = *probabilities.last().ok_or(ReductionError::NoSteps)?;
        let outside = |p: &f64| !(0.0..=1.0).contains(p);
        if let Some(step) = probabilities.iter().position(outside) {
            return Err(ReductionError::NotAProbability { step, score: probabilities[step] });
        }
        let log_mean = || probabilities.iter().map(|p| p.ln()).sum::<f64>() / probabilities.len() as f64;
        let at = |bound: f64| probabilities.iter().position(|p| p.total_cmp(&bound).is_eq());
        Ok(match self {
            Self::Min => probabilities.iter().copied().fold(1.0, f64::min),
            Self::Max => probabilities.iter().copied().fold(0.0, f64::max),
            Self::Prod => (log_mean() * probabilities.len() as f64).exp(),
            Self::GeometricMean => log_mean().exp(),
            Self::Mean => mean(probabilities),
            Self::MeanLogit => match (at(0.0), at(1.0)) {
                (None, None) => sigmoid(mean(&probabilities.iter().map(|p| logit(*p)).collect::<Vec<_>>())),
                (Some(_), None) => 0.0,
                (None, Some(_)) => 1.0,
                (Some(_), Some(step)) => return Err(ReductionError::Infinite { step, probability: 1.0 }),
            },
            Self::MeanOdd => {
                if let Some(step) = at(1.0) {
                    return Err(ReductionError::Infinite { step, probability: 1.0 });
                }
                mean(&probabilities.iter().map(|p| p / (1.0 - p)).collect::<Vec<_>>()).max(0.0)
            }
            Self::Last => last,
        })
    }

    /// Reduces steps given by their log-odds, where a probability rounds to 0 or 1 long before its log-odds stop
    /// counting.
    ///
    /// # Errors
    /// When there are no steps, or the result would not be finite.
    pub fn apply_to_log_odds(self, log_odds: &[f64]) -> Result<f64, ReductionError> {
        if log_odds.is_empty() {
            return Err(ReductionError::NoSteps);
        }
        match self {
            Self::MeanLogit => Ok(sigmoid(mean(log_odds))),
            Self::MeanOdd => {
                let odds = mean(&log_odds.iter().map(|z| z.exp()).collect::<Vec<_>>());
                let largest = log_odds.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(step, _)| step);
                if odds.is_finite() {
                    Ok(odds)
                } else {
                    Err(ReductionError::Infinite { step: largest, probability: 1.0 })
                }
            }
            Self::Prod | Self::GeometricMean => {
                let total: f64 = log_odds.iter().map(|z| super::log_sigmoid(*z)).sum();
                let share = if self == Self::Prod { 1.0 } else { log_odds.len() as f64 };
                Ok((total / share).exp())
            }
            Self::Min | Self::Max | Self::Mean | Self::Last => {
                self.apply(&log_odds.iter().map(|z| sigmoid(*z)).collect::<Vec<_>>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numeric::testing::assert_close;

    #[test]
    fn golden_g14() {
        let expected = [0.5, 0.9, 0.36, 0.711379, 0.733333, 0.767546, 4.666667, 0.8];
        for (reduction, expected) in Reduction::ALL.into_iter().zip(expected) {
            assert_close(reduction.apply(&[0.9, 0.5, 0.8]).unwrap(), expected);
            let log_odds: Vec<f64> = [0.9, 0.5, 0.8].iter().map(|p| logit(*p)).collect();
            assert_close(reduction.apply_to_log_odds(&log_odds).unwrap(), expected);
        }
    }

    #[test]
    fn long_chains_do_not_underflow_in_the_geometric_mean() {
        assert_close(Reduction::GeometricMean.apply(&vec![0.1; 10_000]).unwrap(), 0.1);
        assert_close(Reduction::Prod.apply(&vec![0.1; 10_000]).unwrap(), 0.0);
    }

    #[test]
    fn certainty_is_handled() {
        assert_close(Reduction::MeanLogit.apply(&[1.0, 0.2]).unwrap(), 1.0);
        assert_close(Reduction::MeanLogit.apply(&[0.0, 0.2]).unwrap(), 0.0);
        assert!(matches!(Reduction::MeanLogit.apply(&[0.0, 1.0]), Err(ReductionError::Infinite { step: 1, .. })));
        assert!(matches!(Reduction::MeanOdd.apply(&[0.3, 1.0]), Err(ReductionError::Infinite { step: 1, .. })));
        assert_close(Reduction::MeanLogit.apply_to_log_odds(&[80.0, -80.0]).unwrap(), 0.5);
        assert!(Reduction::MeanOdd.apply_to_log_odds(&[800.0]).is_err());
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        assert_eq!(Reduction::Min.apply(&[]), Err(ReductionError::NoSteps));
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(Reduction::Min.apply(&[0.5, bad]), Err(ReductionError::NotAProbability { step: 1, .. })));
        }
    }

    proptest! {
        #[test]
        fn every_reduction_of_probabilities_is_finite_or_refused(ps in prop::collection::vec(0.0..=1.0_f64, 1..50)) {
            for reduction in Reduction::ALL {
                if let Ok(score) = reduction.apply(&ps) {
                    prop_assert!(score.is_finite() && score >= 0.0);
                    prop_assert!(reduction == Reduction::MeanOdd || score <= 1.0);
                }
            }
        }
    }
}
