//! The λ-harmonic mean of two scores: high only when both are.
//!
//! `r = 1 / (λ/(a + 10⁻⁸) + (1 − λ)/(b + 10⁻⁸))` with `a = (cos₁ + 1)/2`, `b = (cos₂ + 1)/2` — Miao et al. 2024,
//! "Subject-driven Text-to-Image Generation via Preference-based Reinforcement Learning". `λ = 1` is exactly `a` and
//! `λ = 0` exactly `b`. The authors' code has 0.3 as its default and their instructions 0.5, so `λ` is required here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Aggregation, AggregationError, Members, MembersShape};
use crate::domain::{
    Reward, Share,
    catalogue::{Law, Rule},
};

/// The harmonic mean.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Harmonic {
    /// The weight of the first member, from 0 to 1.
    lambda: Share,
    /// The range of the members' scores.
    #[serde(default)]
    inputs: Inputs,
}

impl Rule for Harmonic {
    const NAME: &'static str = "harmonic";
    const SUMMARY: &'static str = "The weighted harmonic mean of two members, mapped from cosine to 0 to 1: a response \
        must please both. Lambda 1 is the first member alone, 0 the second.";
    const FORMULA: &'static str = "r = 1 / (lambda/(a+1e-8) + (1-lambda)/(b+1e-8)), a = (cos_1+1)/2, b = (cos_2+1)/2";
    const SOURCE: &'static str =
        "Miao et al. 2024, Subject-driven Text-to-Image Generation via Preference-based Reinforcement Learning";
    const EXAMPLES: &'static [&'static str] = &[r#"{"lambda": 0.3}"#, r#"{"lambda": 0.5, "inputs": "unit"}"#];
    const LAWS: &'static [Law] = &[Law::MonotoneInMembers];

    type Parameters = Self;
}

/// The range of the members' scores.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Inputs {
    /// Cosine similarities, from −1 to 1.
    #[default]
    Cosine,
    /// Numbers from 0 to 1, taken as they are.
    Unit,
}

/// Keeps the reciprocal of a score of 0 finite.
const EPSILON: f64 = 1e-8;

impl Harmonic {
    fn unit(&self, value: f64) -> Result<f64, AggregationError> {
        let (lowest, highest) = match self.inputs {
            Inputs::Cosine => (-1.0, 1.0),
            Inputs::Unit => (0.0, 1.0),
        };
        if !(lowest..=highest).contains(&value) {
            return Err(AggregationError::OutOfRange { value, lowest, highest });
        }
        Ok((value - lowest) / (highest - lowest))
    }

    fn needs_two(count: usize) -> AggregationError {
        AggregationError::unsuitable(format!("there are {count} members"), "the harmonic mean is defined for two")
    }
}

impl Aggregation for Harmonic {
    fn gives_probabilities(&self, _: bool) -> bool {
        true
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        match shape.flat()? {
            2 => Ok(()),
            count => Err(Self::needs_two(count)),
        }
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let [first, second] = members.values() else {
            return Err(Self::needs_two(members.values().len()));
        };
        let (a, b, lambda) = (self.unit(*first)?, self.unit(*second)?, self.lambda.get());
        // At either end the other score has no say, and the epsilon must not either.
        Ok(Reward::new(if lambda >= 1.0 {
            a
        } else if lambda <= 0.0 {
            b
        } else {
            1.0 / (lambda / (a + EPSILON) + (1.0 - lambda) / (b + EPSILON))
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{aggregate, assert_close, members, rule},
        *,
    };
    use crate::numeric::sigmoid;

    fn harmonic(lambda: f64, cosines: [f64; 2]) -> f64 {
        aggregate(&format!(r#"{{"harmonic":{{"lambda":{lambda}}}}}"#), &cosines)
    }

    #[test]
    fn golden_g11() {
        let expected = [(0.0, 0.65), (0.3, 0.709091), (0.5, 0.754839), (0.7, 0.806897), (1.0, 0.9)];
        for (lambda, expected) in expected {
            assert_close(harmonic(lambda, [0.8, 0.3]), expected);
        }
        assert_close(harmonic(0.3, [0.6, 0.6]), 0.8);
        assert_close(harmonic(0.5, [-0.9, 0.9]), 0.095);
        assert_close(harmonic(0.3, [-0.9, 0.9]), 0.148438);
        assert_close(sigmoid(harmonic(0.3, [0.8, 0.3]) - harmonic(0.3, [0.6, 0.6])), 0.477288);
    }

    #[test]
    fn the_ends_are_exact_and_zero_is_finite() {
        assert_eq!(harmonic(1.0, [0.8, -1.0]).to_bits(), 0.9_f64.to_bits());
        assert_eq!(harmonic(0.0, [0.8, -1.0]).to_bits(), 0.0_f64.to_bits());
        assert!(harmonic(0.5, [-1.0, -1.0]).is_finite());
    }

    #[test]
    fn what_is_no_cosine_and_what_is_no_pair_is_refused() {
        let rule = rule(r#"{"harmonic":{"lambda":0.3}}"#).unwrap();
        assert!(matches!(rule.aggregate(&members(&[1.1, 0.0])), Err(AggregationError::OutOfRange { .. })));
        assert!(rule.check(&MembersShape::of(3)).is_err());
        assert!(rule.aggregate(&members(&[0.1, 0.2, 0.3])).is_err());
    }
}
