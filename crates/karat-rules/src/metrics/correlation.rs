//! Whether a reward model's scores go with what they stand for.
//!
//! Lambert and Calandra 2023, "The Alignment Ceiling: Objective Mismatch in Reinforcement Learning from Human Feedback",
//! argue that a reward's agreement with downstream quality must be measured, not assumed; the choice of coefficients is
//! this project's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, equally_long, ranking_agreement::spearman};
use crate::{domain::catalogue::Rule, numeric::pearson};

/// Two measures of the same samples.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Correlation {
    /// The first measure, one number a sample, at least two.
    first: Vec<f64>,
    /// The second measure, in the same order.
    second: Vec<f64>,
}

impl Rule for Correlation {
    const NAME: &'static str = "correlation";
    const SUMMARY: &'static str = "Pearson's and Spearman's correlation of scores with an outside measure, such as \
        task success, length or refusal. A list of equal numbers has neither.";
    const FORMULA: &'static str = "Pearson r = cov(x, y) / (sd x sd y); Spearman rho = Pearson r of average ranks";
    const SOURCE: &'static str =
        "Lambert and Calandra 2023, The Alignment Ceiling (the question; the coefficients are standard)";
    const EXAMPLES: &'static [&'static str] = &[r#"{"first": [0.1, 0.9, 0.4], "second": [12, 40, 31]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        equally_long(&self.first, &self.second, 2)
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Coefficients {
    pearson: Option<f64>,
    spearman: Option<f64>,
}

impl Metric for Correlation {
    fn compute(&self) -> Result<Value, MetricError> {
        let spearman = spearman(&self.first, &self.second);
        answer(Coefficients { pearson: pearson(&self.first, &self.second), spearman })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{metric, number};
    use crate::numeric::testing::assert_close;

    #[test]
    fn a_curve_keeps_its_rank_correlation() {
        let result = metric(r#"{"correlation":{"first":[1,2,3,4],"second":[1,4,9,16]}}"#).unwrap();
        assert_close(number(&result, "/spearman"), 1.0);
        // cov 12.5 over sqrt(5 · 129), in sums of squares
        assert_close(number(&result, "/pearson"), 25.0 / (5.0_f64 * 129.0).sqrt());
    }
}
