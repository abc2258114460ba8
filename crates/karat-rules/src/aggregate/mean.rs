//! The mean of the members: the plain ensemble.
//!
//! `R = (1/k) Σ Rᵢ` — Coste et al. 2023, eq. 1.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    Reward,
    catalogue::{Law, Rule},
};

/// The arithmetic mean.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mean {}

impl Rule for Mean {
    const NAME: &'static str = "mean";
    const SUMMARY: &'static str = "The mean of the members.";
    const FORMULA: &'static str = "R = (1/k) sum_i R_i";
    const SOURCE: &'static str = "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 1";
    const LAWS: &'static [Law] =
        &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers];

    type Parameters = Self;
}

impl Aggregation for Mean {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        Ok(Reward::new(members.mean())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn golden_g1() {
        assert_close(aggregate("\"mean\"", &[1.0, 2.0, 0.5, 1.5, 1.0]), 1.2);
        assert_close(aggregate("\"mean\"", &[-0.3, 0.8, 2.6, -1.1]), 0.5);
        assert_close(aggregate("\"mean\"", &[0.7]), 0.7);
    }
}
