//! Turns a logit into a probability.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Pointwise;
use crate::{
    domain::catalogue::{Law, Rule},
    numeric,
};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sigmoid {}

impl Rule for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const SUMMARY: &'static str = "Turns a logit into a number from 0 to 1: the probability of a classifier's label, \
        or Bradley and Terry's probability of beating a response that scores 0.";
    const FORMULA: &'static str = "r' = 1 / (1 + exp(-r))";
    const SOURCE: &'static str = "Bradley and Terry 1952, Rank Analysis of Incomplete Block Designs";
    const LAWS: &'static [Law] = &[Law::KeepsOrder, Law::Probability];

    type Parameters = Self;
}

impl Pointwise for Sigmoid {
    fn map(&self, value: f64) -> f64 {
        numeric::sigmoid(value)
    }

    fn gives_probabilities(&self, _: bool) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, outcome};

    #[test]
    fn golden_g10_the_first_prefix() {
        assert_all_close(&[outcome(r#"["sigmoid"]"#, 2.0), outcome(r#"["sigmoid"]"#, -1e30)], &[0.880797, 0.0]);
    }
}
