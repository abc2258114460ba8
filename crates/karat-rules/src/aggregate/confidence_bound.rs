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
        Reward,
        catalogue::{Entry, Law, not_negative, parameter_schema, parameters},
    },
    numeric::DegreesOfFreedom,
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "confidence_bound",
    summary: "The mean lowered (pessimism) or raised (optimism) by lambda times the members' variance: pessimism for \
              optimising against the reward, optimism for exploring where it is uncertain.",
    formula: "R = mean_i R_i + sign * lambda * var_i R_i; sign = -1 for pessimism, +1 for optimism",
    source: "this project's; pessimism is Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 4",
    examples: &[
        r#"{"direction": "optimism", "lambda": 0.1}"#,
        r#"{"direction": "pessimism", "lambda": 0.5, "ddof": 1}"#,
    ],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { direction, lambda, ddof } = parameters(value)?;
        Ok(Box::new(ConfidenceBound { direction, lambda: not_negative("lambda", lambda)?, ddof }))
    },
};

/// Parameters of the confidence bound.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Whether disagreement counts against a response or for it.
    direction: Direction,
    /// The weight of the variance, at least 0.
    #[schemars(range(min = 0.0))]
    lambda: f64,
    /// 0 divides by the number of members; 1 by one less.
    #[serde(default)]
    ddof: DegreesOfFreedom,
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

#[derive(Debug, Clone, Copy)]
struct ConfidenceBound {
    direction: Direction,
    lambda: f64,
    ddof: DegreesOfFreedom,
}

impl Aggregation for ConfidenceBound {
    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        shape.at_least(self.ddof.least()).map(|_| ())
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let variance = members.variance_with(self.ddof)?;
        let change = if self.lambda > 0.0 { self.lambda * variance } else { 0.0 };
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
