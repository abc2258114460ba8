//! The mean of the members: the plain ensemble.
//!
//! `R = (1/k) Σ Rᵢ` — Coste et al. 2023, eq. 1.

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    Reward,
    catalogue::{Entry, Law, NoParameters, parameter_schema, parameters},
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "mean",
    summary: "The mean of the members.",
    formula: "R = (1/k) sum_i R_i",
    source: "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 1",
    examples: &["{}"],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers],
    parameters: parameter_schema::<NoParameters>,
    build: |value| parameters::<NoParameters>(value).map(|_| Box::new(Mean) as Box<dyn Aggregation>),
};

/// The arithmetic mean.
#[derive(Debug, Clone, Copy)]
pub struct Mean;

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
