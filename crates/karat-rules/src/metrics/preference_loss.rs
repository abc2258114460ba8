//! What a preference label costs a reward model.
//!
//! With `p = σ(r_chosen − r_rejected)`: the negative log-likelihood with smoothed labels, `−[(1 − α) log p + α log(1 −
//! p)]`, and with a margin, `−log σ(r_chosen − r_rejected − m)` (Wang et al. 2024, "Secrets of RLHF in Large Language
//! Models Part II: Reward Modeling").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, equally_long, finite};
use crate::{
    domain::{Share, catalogue::Rule},
    numeric::{log_sigmoid, mean},
};

/// The scores of pairs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreferenceLoss {
    /// Of the chosen responses, at least one.
    chosen: Vec<f64>,
    /// Of the rejected responses, in the same order.
    rejected: Vec<f64>,
    /// The share of labels that are taken as wrong, from 0 to 1.
    #[serde(default)]
    smoothing: Share,
    /// How much better a chosen response must be.
    #[serde(default)]
    margin: f64,
}

impl Rule for PreferenceLoss {
    const NAME: &'static str = "preference_loss";
    const SUMMARY: &'static str = "The negative log-likelihood of preference labels under Bradley and Terry, with \
        smoothed labels and a margin if wanted, and the accuracy.";
    const FORMULA: &'static str =
        "-[(1 - smoothing) log sigmoid(d) + smoothing log sigmoid(-d)], d = r_chosen - r_rejected - margin";
    const SOURCE: &'static str =
        "Bradley and Terry 1952; Wang et al. 2024, Secrets of RLHF in Large Language Models Part II: Reward Modeling";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"chosen": [0.35], "rejected": [0], "smoothing": 0.1}"#,
        r#"{"chosen": [0.8], "rejected": [0], "margin": 0.35}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        equally_long(&self.chosen, &self.rejected, 1)
            .map_err(|error| error.replace("first", "chosen").replace("second", "rejected"))
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Loss {
    loss: f64,
    accuracy: f64,
}

/// `−[(1 − α) log σ(d) + α log σ(−d)]`: the loss of a difference of rewards when a share `α` of labels is wrong.
fn smoothed_loss(difference: f64, smoothing: f64) -> f64 {
    // A share of 0 must not turn an unbounded loss of the other label into 0 · ∞.
    let term = |weight: f64, log: f64| if weight > 0.0 { weight * log } else { 0.0 };
    -(term(1.0 - smoothing, log_sigmoid(difference)) + term(smoothing, log_sigmoid(-difference)))
}

impl Metric for PreferenceLoss {
    fn compute(&self) -> Result<Value, MetricError> {
        let pairs = || self.chosen.iter().zip(&self.rejected);
        let losses: Vec<f64> = pairs()
            .map(|(chosen, rejected)| smoothed_loss(chosen - rejected - self.margin, self.smoothing.get()))
            .collect();
        let right = pairs().filter(|(chosen, rejected)| chosen > rejected).count();
        answer(Loss { loss: finite("the loss", mean(&losses))?, accuracy: right as f64 / losses.len() as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{metric, number},
        *,
    };
    use crate::numeric::testing::assert_close;

    #[test]
    fn golden_g6_losses() {
        for (smoothing, expected) in [(0.0, 0.533382), (0.1, 0.568382), (0.2, 0.603382)] {
            assert_close(smoothed_loss(0.35, smoothing), expected);
        }
        assert_close(smoothed_loss(0.8 - 0.35, 0.0), 0.493249);
        let result = metric(&format!(r#"{{"preference_loss":{}}}"#, PreferenceLoss::EXAMPLES[1])).unwrap();
        assert_close(number(&result, "/loss"), 0.493249);
        assert_close(number(&result, "/accuracy"), 1.0);
    }

    #[test]
    fn golden_g8_the_loss_that_a_consistency_of_four_fifths_weights() {
        assert_close(smoothed_loss(0.5, 1.0 - 0.8), 0.574077);
    }

    #[test]
    fn extremes_are_finite_or_refused() {
        assert_close(smoothed_loss(1e30, 0.0), 0.0);
        assert!(metric(r#"{"preference_loss":{"chosen":[1.7e308],"rejected":[-1.7e308]}}"#).is_ok());
        assert!(metric(r#"{"preference_loss":{"chosen":[-1.7e308],"rejected":[1.7e308]}}"#).is_err());
        assert!(metric(r#"{"preference_loss":{"chosen":[1],"rejected":[0],"smoothing":2}}"#).is_err());
    }
}
