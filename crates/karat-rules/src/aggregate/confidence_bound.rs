//! The mean, lowered or raised by the members' disagreement.
//!
//! `R = R̄ + s · λ · Var(R)`, with `s = −1` for pessimism and `+1` for optimism. Pessimism is the uncertainty-weighted
//! score of Coste et al. 2023; the signed form is this project's own, for the optimism that value-incentivised
//! (Cen et al. 2024) and self-exploring (Zhang et al. 2024) preference optimisation ask for.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape};
use crate::{
    domain::{
        NotNegative, Reward,
        catalogue::{Law, Rule},
    },
    numeric::DegreesOfFreedom,
};

/// The confidence bound.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfidenceBound {
    /// Whether disagreement counts against a response or for it.
    direction: Direction,
    /// The weight of the variance, at least 0.
    lambda: NotNegative,
    /// 0 divides by the number of members; 1 by one less.
    #[serde(default)]
    ddof: DegreesOfFreedom,
}

impl Rule for ConfidenceBound {
    const NAME: &'static str = "confidence_bound";
    const SUMMARY: &'static str = "The mean lowered (pessimism) or raised (optimism) by lambda times the members' \
        variance: pessimism for optimising against the reward, optimism for exploring where it is uncertain.";
    const FORMULA: &'static str =
        "R = mean_i R_i + sign * lambda * var_i R_i; sign = -1 for pessimism, +1 for optimism";
    const SOURCE: &'static str =
        "this project's; pessimism is Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 4";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"direction": "optimism", "lambda": 0.1}"#, r#"{"direction": "pessimism", "lambda": 0.5, "ddof": 1}"#];
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::OneMemberIsIdentity];

    type Parameters = Self;
}

/// Whether disagreement counts against a response or for it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Direction {
    /// Disagreement lowers the reward.
    Pessimism,
    /// Disagreement raises the reward.
    Optimism,
}

impl Aggregation for ConfidenceBound {
    fn gives_probabilities(&self, _: bool) -> bool {
        // What is put on or taken off may lead out of the range.
        false
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        shape.at_least(self.ddof.least()).map(|_| ())
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let change = members.weighted_variance(self.lambda, self.ddof)?;
        Ok(Reward::new(match self.direction {
            Direction::Pessimism => members.mean() - change,
            Direction::Optimism => members.mean() + change,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn golden_g1_pessimism_is_the_uncertainty_weighted_score() {
        let a = [1.0, 2.0, 0.5, 1.5, 1.0];
        assert_close(aggregate(r#"{"confidence_bound":{"direction":"pessimism","lambda":0.5}}"#, &a), 1.07);
        assert_close(aggregate(r#"{"confidence_bound":{"direction":"optimism","lambda":0.5}}"#, &a), 1.2 + 0.13);
    }
}
