//! Whether a reward model's scores go with what they stand for.
//!
//! Lambert and Calandra 2023, "The Alignment Ceiling: Objective Mismatch in Reinforcement Learning from Human Feedback",
//! argue that a reward's agreement with downstream quality must be measured, not assumed; the choice of coefficients is
//! this project's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, equally_long, spearman};
use crate::{
    domain::catalogue::{Entry, parameter_schema, parameters},
    numeric::pearson,
};

pub(super) const ENTRY: Entry<dyn Metric> = Entry {
    name: "correlation",
    summary: "Pearson's and Spearman's correlation of scores with an outside measure, such as task success, length or \
              refusal. A list of equal numbers has neither.",
    formula: "Pearson r = cov(x, y) / (sd x sd y); Spearman rho = Pearson r of average ranks",
    source: "Lambert and Calandra 2023, The Alignment Ceiling (the question; the coefficients are standard)",
    examples: &[r#"{"first": [0.1, 0.9, 0.4], "second": [12, 40, 31]}"#],
    laws: &[],
    parameters: parameter_schema::<Correlation>,
    build: |value| {
        let metric: Correlation = parameters(value)?;
        equally_long(&metric.first, &metric.second, 2)?;
        Ok(Box::new(metric))
    },
};

/// Two measures of the same samples.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Correlation {
    /// The first measure, one number a sample, at least two.
    first: Vec<f64>,
    /// The second measure, in the same order.
    second: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Coefficients {
    pearson: Option<f64>,
    spearman: Option<f64>,
}

impl Metric for Correlation {
    fn evaluate(&self) -> Result<Value, MetricError> {
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
