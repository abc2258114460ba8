//! A logical AND over members or objectives, each measured against its own reference.
//!
//! `R = Σ log σ(rᵢ − r_refᵢ)` — Wang et al. 2024, "Transforming and Combining Rewards for Aligning Large Language
//! Models". `exp(R)` is the probability that a response is good by every property at once, if they are independent.
//! Scores of unlike models have unlike offsets, so each needs a reference of its own.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape, per_member::PerMember};
use crate::{
    domain::{
        Reward,
        catalogue::{Law, Rule},
    },
    numeric::log_sigmoid,
};

/// The logical AND.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogSigmoidAnd {
    /// The score of a response that is just good enough, for each member: a list in the members' order, or a table by
    /// the objectives' names.
    references: PerMember,
}

impl Rule for LogSigmoidAnd {
    const NAME: &'static str = "log_sigmoid_and";
    const SUMMARY: &'static str = "The log-probability of being good by every member at once, each against its own \
        reference: none buys off another.";
    const FORMULA: &'static str = "R = sum_i log sigmoid(r_i - reference_i)";
    const SOURCE: &'static str =
        "Wang et al. 2024, Transforming and Combining Rewards for Aligning Large Language Models";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"references": [0.0, 0.0]}"#, r#"{"references": {"helpful": 1.2, "harmless": -0.3}}"#];
    const LAWS: &'static [Law] = &[Law::MonotoneInMembers];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        self.references.check_some("references")
    }
}

impl Aggregation for LogSigmoidAnd {
    fn gives_probabilities(&self, _: bool) -> bool {
        // It is the logarithm of one.
        false
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        self.references.check(shape)
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let references = self.references.of(members)?;
        let terms = members.values().iter().zip(&references).map(|(value, reference)| log_sigmoid(value - reference));
        Ok(Reward::new(terms.sum())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn golden_g4_the_logical_and_flips_the_ranking() {
        let and = r#"{"log_sigmoid_and":{"references":[0,0]}}"#;
        let (lopsided, balanced) = ([5.0, -2.0], [1.2, 1.2]);
        assert!(aggregate("\"sum\"", &lopsided) > aggregate("\"sum\"", &balanced));
        assert_close(aggregate(and, &lopsided), -2.133643);
        assert_close(aggregate(and, &balanced), -0.526565);
        assert_close(aggregate(and, &lopsided).exp(), 0.118405);
        assert_close(aggregate(and, &balanced).exp(), 0.590630);
    }

    #[test]
    fn each_member_has_its_own_reference() {
        let and = r#"{"log_sigmoid_and":{"references":[5,-2]}}"#;
        assert_close(aggregate(and, &[5.0, -2.0]), 2.0 * 0.5_f64.ln());
    }
}
