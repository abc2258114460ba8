//! The lowest member: nothing counts as good that any member calls bad.
//!
//! `R = minᵢ Rᵢ` — worst-case optimisation, Coste et al. 2023, eq. 3.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    Reward,
    catalogue::{Law, Rule},
};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorstCase {}

impl Rule for WorstCase {
    const NAME: &'static str = "worst_case";
    const SUMMARY: &'static str =
        "The lowest member; needs no tuning, and is robust as long as one member sees the flaw.";
    const FORMULA: &'static str = "R = min_i R_i";
    const SOURCE: &'static str = "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 3";
    const LAWS: &'static [Law] =
        &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers];

    type Parameters = Self;
}

impl Aggregation for WorstCase {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        Ok(Reward::new(members.minimum())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn golden_g1() {
        assert_close(aggregate("\"worst_case\"", &[1.0, 2.0, 0.5, 1.5, 1.0]), 0.5);
        assert_close(aggregate("\"worst_case\"", &[-0.3, 0.8, 2.6, -1.1]), -1.1);
        assert_close(aggregate("\"worst_case\"", &[0.7]), 0.7);
    }
}
