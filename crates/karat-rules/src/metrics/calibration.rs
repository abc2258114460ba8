//! Whether probabilities mean what they say.
//!
//! Expected calibration error (Naeini et al. 2015; Guo et al. 2017): probabilities in equally wide bins, the gap between
//! their mean and the share that came true, weighted by the bins' sizes. For preferences, the probability is `σ(margin)`
//! and what came true is the label.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer};
use crate::{
    domain::{Count, Share, catalogue::Rule},
    numeric::mean,
};

/// Probabilities and what came true.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Calibration {
    /// From 0 to 1, at least one.
    probabilities: Vec<f64>,
    /// Whether each came true.
    outcomes: Vec<bool>,
    /// How many equally wide bins to use.
    bins: Count,
}

impl Rule for Calibration {
    const NAME: &'static str = "calibration";
    const SUMMARY: &'static str = "Expected calibration error of probabilities against what came true, over equally \
        wide bins: 0 when of all pairs preferred with 70 % about 70 % are labelled so. Also the Brier score.";
    const FORMULA: &'static str = "ECE = sum_b (n_b / n) |mean p - share true|; Brier = mean (p - true)^2";
    const SOURCE: &'static str = "Guo et al. 2017, On Calibration of Modern Neural Networks; Brier 1950";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"probabilities": [0.9, 0.8, 0.3], "outcomes": [true, true, false], "bins": 10}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        if self.probabilities.len() != self.outcomes.len() || self.probabilities.is_empty() {
            return Err("send one outcome for each probability, and at least one".to_owned());
        }
        self.probabilities.iter().try_for_each(|p| Share::named("a probability", *p).map(|_| ()))
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Errors {
    expected_calibration_error: f64,
    brier: f64,
}

impl Metric for Calibration {
    fn compute(&self) -> Result<Value, MetricError> {
        let truth = |index: usize| if self.outcomes[index] { 1.0 } else { 0.0 };
        let bins = self.bins.get();
        let bin = |p: f64| ((p * bins as f64) as usize).min(bins - 1);
        // Sorted by bin instead of one list a bin: their number is the caller's to choose.
        let mut order: Vec<usize> = (0..self.probabilities.len()).collect();
        order.sort_by_key(|index| bin(self.probabilities[*index]));
        let gaps = order
            .chunk_by(|a, b| bin(self.probabilities[*a]) == bin(self.probabilities[*b]))
            .map(|members| members.iter().map(|index| self.probabilities[*index] - truth(*index)).sum::<f64>().abs());
        let squares: Vec<f64> =
            self.probabilities.iter().enumerate().map(|(index, p)| (p - truth(index)).powi(2)).collect();
        let expected_calibration_error = gaps.sum::<f64>() / self.probabilities.len() as f64;
        answer(Errors { expected_calibration_error, brier: mean(&squares) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{metric, number};
    use crate::numeric::testing::assert_close;

    #[test]
    fn gaps_are_weighted_by_their_bins() {
        // Bins [0, .5) and [.5, 1]: |0.2 − 0|·1/4 + |0.8 − 2/3|·3/4.
        let input = r#"{"probabilities":[0.2,0.7,0.8,0.9],"outcomes":[false,true,true,false],"bins":2}"#;
        let result = metric(&format!(r#"{{"calibration":{input}}}"#)).unwrap();
        assert_close(number(&result, "/expected_calibration_error"), 0.05 + 0.1);
        assert_close(number(&result, "/brier"), (0.04 + 0.09 + 0.04 + 0.81) / 4.0);
    }

    #[test]
    fn certainty_falls_into_the_last_bin_and_nonsense_is_refused() {
        let right =
            r#"{"calibration":{"probabilities":[1.0,0.0],"outcomes":[true,false],"bins":18446744073709551615}}"#;
        assert_close(number(&metric(right).unwrap(), "/expected_calibration_error"), 0.0);
        for bad in [
            r#"{"probabilities":[1.1],"outcomes":[true],"bins":2}"#,
            r#"{"probabilities":[0.1],"outcomes":[],"bins":2}"#,
            r#"{"probabilities":[0.1],"outcomes":[true],"bins":0}"#,
        ] {
            assert!(metric(&format!(r#"{{"calibration":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
