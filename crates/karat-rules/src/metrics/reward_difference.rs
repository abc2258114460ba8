//! The difference of two rewards as a target for a difference of log-ratios.
//!
//! `target = (r_a − r_b)/β`; a policy whose log-ratios differ by exactly that is optimal under the reward with weight `β`
//! of the divergence (Deng et al. 2024, "PRDP: Proximal Reward Difference Prediction for Large-Scale Reward Finetuning of
//! Diffusion Models"). The paper uses `β = 10`; it depends on the reward's scale and is required.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, finite, not_empty};
use crate::{
    domain::{Positive, catalogue::Rule},
    numeric::mean,
};

/// Pairs of rewards.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewardDifference {
    /// At least one.
    pairs: Vec<Pair>,
    /// The weight of the divergence, above 0.
    beta: Positive,
}

impl Rule for RewardDifference {
    const NAME: &'static str = "reward_difference";
    const SUMMARY: &'static str = "The difference of each pair's rewards over beta, which a policy's log-ratios should \
        differ by, and the squared error where log-ratios are sent.";
    const FORMULA: &'static str = "target = (r_a - r_b) / beta; loss = (log_ratio_a - log_ratio_b - target)^2";
    const SOURCE: &'static str = "Deng et al. 2024, PRDP: Proximal Reward Difference Prediction for Large-Scale Reward \
        Finetuning of Diffusion Models";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"pairs": [{"first": 1.2, "second": 1.0}], "beta": 10}"#,
        r#"{"pairs": [{"first": 0.2, "second": 0, "log_ratios": [1.5, 0.7]}], "beta": 10}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        not_empty("pairs", &self.pairs)
    }
}

/// The rewards of two responses to one prompt.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// Of the first response.
    first: f64,
    /// Of the second response.
    second: f64,
    /// The policy's log-probability of each response less the reference policy's.
    #[serde(default)]
    log_ratios: Option<[f64; 2]>,
}

#[derive(Debug, Clone, Serialize)]
struct Targets {
    targets: Vec<f64>,
    loss: Option<f64>,
}

impl Metric for RewardDifference {
    fn compute(&self) -> Result<Value, MetricError> {
        let target = |pair: &Pair| finite("a target", (pair.first - pair.second) / self.beta.get());
        let targets: Vec<f64> = self.pairs.iter().map(target).collect::<Result<_, _>>()?;
        let errors: Vec<f64> = self
            .pairs
            .iter()
            .zip(&targets)
            .filter_map(|(pair, target)| pair.log_ratios.map(|[first, second]| (first - second - target).powi(2)))
            .collect();
        let loss = if errors.is_empty() { None } else { Some(finite("the loss", mean(&errors))?) };
        answer(Targets { targets, loss })
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
    fn golden_g19_the_loss() {
        let result = metric(&format!(r#"{{"reward_difference":{}}}"#, RewardDifference::EXAMPLES[1])).unwrap();
        assert_close(number(&result, "/targets/0"), 0.02);
        assert_close(number(&result, "/loss"), 0.608400);
        let without = metric(&format!(r#"{{"reward_difference":{}}}"#, RewardDifference::EXAMPLES[0])).unwrap();
        assert!(without["loss"].is_null());
        assert!(metric(r#"{"reward_difference":{"pairs":[{"first":1,"second":0}]}}"#).is_err());
    }
}
