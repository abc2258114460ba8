//! The mean, drawn towards a neutral reward where the members disagree.
//!
//! `R = t + (R̄ − t) · exp(−s · U)`. The weight `exp(−U)`, with `U = |out₁ − out₂|` of two passes, is that of "Ctrl-U:
//! Robust Conditional Image Generation via Uncertainty-aware Reward Modeling" (Zhang et al. 2024), where it scales a
//! loss; its use on a reward is this project's. `U` may also be the sensitivity of the reward, as large as the change
//! `|R̄(y) − R̄(y′)|` that an edit `y′` of the response makes where none should matter: a confidence by which a reward is
//! multiplied, as "Lipschitzness Is All You Need To Tame Off-policy Generative Adversarial Imitation Learning" (Blondé et
//! al. 2020) preconditions it. With `t = 0` a negative reward would rise with disagreement, so `t` can
//! be set to the lowest reward that a response should fall to.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    NotNegative, Reward,
    catalogue::{Law, Rule},
};

/// The confidence weight.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfidenceWeighted {
    /// What is taken as disagreement.
    uncertainty: Uncertainty,
    /// The factor `s` of the disagreement, at least 0.
    #[serde(default = "one")]
    scale: NotNegative,
    /// The reward that disagreement draws towards.
    #[serde(default)]
    toward: f64,
}

impl Rule for ConfidenceWeighted {
    const NAME: &'static str = "confidence_weighted";
    const SUMMARY: &'static str = "The mean times exp(-s U), where U is the members' disagreement, or how much the mean \
        changes with edits of the response that shouldn't matter, which are scored as well (\"sensitivity\"): an uncertain \
        reward says little. It is drawn towards a neutral reward, 0 unless given; set that below every reward where rewards \
        may be negative.";
    const FORMULA: &'static str = "R = toward + (mean_i R_i - toward) * exp(-scale * U)";
    const SOURCE: &'static str = "the weight: Zhang et al. 2024, Ctrl-U: Robust Conditional Image Generation via \
        Uncertainty-aware Reward Modeling; its use on a reward is this project's";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"uncertainty": "range"}"#, r#"{"uncertainty": "deviation", "scale": 2, "toward": -5}"#];
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::OneMemberIsIdentity];

    type Parameters = Self;
}

fn one() -> NotNegative {
    const { NotNegative::constant(1.0) }
}

/// What is taken as disagreement.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Uncertainty {
    /// The highest member less the lowest: for two members, the paper's `|out₁ − out₂|`.
    Range,
    /// The population standard deviation.
    Deviation,
    /// The population variance.
    Variance,
    /// The largest change of the mean by edits that shouldn't matter: the case of first letters, white space, the order
    /// of lists. Each sample costs the passes of its edits, too.
    Sensitivity,
}

impl Aggregation for ConfidenceWeighted {
    fn gives_probabilities(&self, before: bool) -> bool {
        before && (0.0..=1.0).contains(&self.toward)
    }

    fn needs_sensitivity(&self) -> bool {
        matches!(self.uncertainty, Uncertainty::Sensitivity)
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let uncertainty = match self.uncertainty {
            Uncertainty::Range => {
                members.values().iter().copied().fold(f64::NEG_INFINITY, f64::max) - members.minimum()
            }
            Uncertainty::Deviation => members.variance().sqrt(),
            Uncertainty::Variance => members.variance(),
            Uncertainty::Sensitivity => members.sensitivity().ok_or_else(|| {
                AggregationError::unsuitable(
                    "how sensitive the reward is isn't known for a part of a model",
                    "weigh the whole by it: its manifest's aggregate, or the request's",
                )
            })?,
        };
        let confidence = confidence(self.scale, uncertainty);
        Ok(Reward::new(members.mean() * confidence + self.toward * (1.0 - confidence))?)
    }
}

/// The weight of a reward of some uncertainty, from 0 to 1: `exp(−s · U)`.
#[must_use]
pub fn confidence(scale: NotNegative, uncertainty: f64) -> f64 {
    // Scale 0 ignores an uncertainty, even one that overflowed.
    if scale.get() > 0.0 { (-scale.get() * uncertainty).exp() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close, members, rule};

    #[test]
    fn golden_g12() {
        let range = r#"{"confidence_weighted":{"uncertainty":"range"}}"#;
        assert_close(aggregate(range, &[0.8, 0.8]), 0.8);
        assert_close(aggregate(range, &[0.55, 1.05]), 0.485225);
        assert_close(aggregate(range, &[-0.2, 1.8]), 0.108268);
    }

    /// By hand: `-3 + (1 + 3) · exp(−2 · 0.5)`, of a mean of 1.
    #[test]
    fn a_sensitive_reward_is_drawn_towards_the_neutral_one() {
        let rule = rule(r#"{"confidence_weighted":{"uncertainty":"sensitivity","scale":2,"toward":-3}}"#).unwrap();
        let steady = members(&[0.0, 2.0]);
        assert!(rule.needs_sensitivity() && rule.aggregate(&steady).is_err());
        let of = |sensitivity| rule.aggregate(&steady.clone().with_sensitivity(sensitivity).unwrap()).unwrap().get();
        assert_close(of(0.5), -3.0 + 4.0 * (-1.0_f64).exp());
        assert_close(of(0.0), 1.0);
        assert!(steady.with_sensitivity(f64::NAN).is_none());
    }

    #[test]
    fn disagreement_draws_towards_the_neutral_reward() {
        let rule = r#"{"confidence_weighted":{"uncertainty":"range","scale":100,"toward":-3}}"#;
        assert_close(aggregate(rule, &[0.0, 2.0]), -3.0);
        assert_close(aggregate(rule, &[1.0, 1.0]), 1.0);
    }
}
