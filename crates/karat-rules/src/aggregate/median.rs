//! The middle member: up to half of them may be wild without moving it far.
//!
//! With an even number of members it is the mean of the two in the middle.

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Reward,
        catalogue::{Entry, Law, NoParameters, parameter_schema, parameters},
    },
    numeric::quantile,
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "median",
    summary: "The middle member, or the mean of the two in the middle: robust against a minority of wild members.",
    formula: "R = median_i R_i",
    source: "standard statistics",
    examples: &["{}"],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers],
    parameters: parameter_schema::<NoParameters>,
    build: |value| parameters::<NoParameters>(value).map(|_| Box::new(Median) as Box<dyn Aggregation>),
};

#[derive(Debug, Clone, Copy)]
struct Median;

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
