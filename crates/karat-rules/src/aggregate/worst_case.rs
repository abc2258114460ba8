//! The lowest member: nothing counts as good that any member calls bad.
//!
//! `R = minᵢ Rᵢ` — worst-case optimisation, Coste et al. 2023, eq. 3.

use super::{Aggregation, AggregationError, Members};
use crate::domain::{
    Reward,
    catalogue::{Entry, Law, NoParameters, parameter_schema, parameters},
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "worst_case",
    summary: "The lowest member; needs no tuning, and is robust as long as one member sees the flaw.",
    formula: "R = min_i R_i",
    source: "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 3",
    examples: &["{}"],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers],
    parameters: parameter_schema::<NoParameters>,
    build: |value| parameters::<NoParameters>(value).map(|_| Box::new(WorstCase) as Box<dyn Aggregation>),
};

#[derive(Debug, Clone, Copy)]
struct WorstCase;

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
