//! Squashes a reward into a symmetric range, with slope 1 at 0.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Pointwise;
use crate::domain::{
    Positive,
    catalogue::{Law, Rule},
};

/// The squash.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tanh {
    /// The largest magnitude, above 0.
    #[serde(default = "one")]
    range: Positive,
}

impl Rule for Tanh {
    const NAME: &'static str = "tanh";
    const SUMMARY: &'static str = "Squashes a reward smoothly into -1 to 1, or into -range to range: no reward \
        dominates, small ones stay as they are.";
    const FORMULA: &'static str = "r' = range * tanh(r / range)";
    const SOURCE: &'static str = "standard practice";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"range": 0.5}"#];
    const LAWS: &'static [Law] = &[Law::KeepsOrder, Law::Bounded];

    type Parameters = Self;
}

fn one() -> Positive {
    const { Positive::constant(1.0) }
}

impl Pointwise for Tanh {
    fn map(&self, value: f64) -> f64 {
        let range = self.range.get();
        range * (value / range).tanh()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, outcome};

    #[test]
    fn small_rewards_stay_and_large_ones_saturate() {
        let squash = r#"[{"tanh":{"range":10}}]"#;
        assert_all_close(&[outcome(squash, 1e-4), outcome(squash, 1e9), outcome(squash, -1e9)], &[1e-4, 10.0, -10.0]);
    }
}
