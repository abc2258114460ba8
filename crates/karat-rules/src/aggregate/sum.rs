//! The sum of the members: with log-sigmoid members, a logical AND.
//!
//! `R = Σ Rᵢ`. Where each member is `log σ(rᵢ − r_ref)`, `exp(R)` is the probability that a response is good by
//! every property at once, if they are independent (Wang et al. 2024, "Transforming and Combining Rewards for
//! Aligning Large Language Models").

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    Reward,
    catalogue::{Law, Rule},
};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sum {}

impl Rule for Sum {
    const NAME: &'static str = "sum";
    const SUMMARY: &'static str = "The sum of the members. Over log-sigmoid members it is a logical AND: a response \
        must be good by every property, and none buys off another.";
    const FORMULA: &'static str = "R = sum_i R_i";
    const SOURCE: &'static str =
        "Wang et al. 2024, Transforming and Combining Rewards for Aligning Large Language Models";
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::MonotoneInMembers];

    type Parameters = Self;
}

impl Aggregation for Sum {
    fn gives_probabilities(&self, _: bool) -> bool {
        // Several probabilities may come to more than 1.
        false
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        Ok(Reward::new(members.values().iter().sum())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn golden_g4_the_raw_sum_prefers_the_lopsided_response() {
        assert_close(aggregate("\"sum\"", &[5.0, -2.0]), 3.0);
        assert_close(aggregate("\"sum\"", &[1.2, 1.2]), 2.4);
    }
}
