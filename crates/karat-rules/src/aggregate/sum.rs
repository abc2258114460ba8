//! The sum of the members: with log-sigmoid members, a logical AND.
//!
//! `R = Σ Rᵢ`. Where each member is `log σ(rᵢ − r_ref)`, `exp(R)` is the probability that a response is good by
//! every property at once, if they are independent (Wang et al. 2024, "Transforming and Combining Rewards for
//! Aligning Large Language Models").

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    Reward,
    catalogue::{Entry, Law, NoParameters, parameter_schema, parameters},
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "sum",
    summary: "The sum of the members. Over log-sigmoid members it is a logical AND: a response must be good by \
              every property, and none buys off another.",
    formula: "R = sum_i R_i",
    source: "Wang et al. 2024, Transforming and Combining Rewards for Aligning Large Language Models",
    examples: &["{}"],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::MonotoneInMembers],
    parameters: parameter_schema::<NoParameters>,
    build: |value| parameters::<NoParameters>(value).map(|_| Box::new(Sum) as Box<dyn Aggregation>),
};

#[derive(Debug, Clone, Copy)]
struct Sum;

impl Aggregation for Sum {
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
