//! The middle member: up to half of them may be wild without moving it far.
//!
//! With an even number of members it is the mean of the two in the middle.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Reward,
        catalogue::{Law, Rule},
    },
    numeric::quantile,
};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Median {}

impl Rule for Median {
    const NAME: &'static str = "median";
    const SUMMARY: &'static str =
        "The middle member, or the mean of the two in the middle: robust against a minority of wild members.";
    const FORMULA: &'static str = "R = median_i R_i";
    const SOURCE: &'static str = "standard statistics";
    const LAWS: &'static [Law] =
        &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers];

    type Parameters = Self;
}

impl Aggregation for Median {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        Ok(Reward::new(quantile(members.values(), 0.5).unwrap_or(f64::NAN))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn odd_and_even_counts() {
        assert_close(aggregate("\"median\"", &[1.0, 9.0, 2.0]), 2.0);
        assert_close(aggregate("\"median\"", &[1.0, 9.0, 2.0, 4.0]), 3.0);
    }
}
