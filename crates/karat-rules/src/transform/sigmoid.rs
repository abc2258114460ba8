//! Turns a logit into a probability.

use super::{Pointwise, Transform};
use crate::{
    domain::catalogue::{Entry, Law, NoParameters, parameter_schema, parameters},
    numeric,
};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "sigmoid",
    summary: "Turns a logit into a number from 0 to 1: the probability of a classifier's label, or Bradley and Terry's \
              probability of beating a response that scores 0.",
    formula: "r' = 1 / (1 + exp(-r))",
    source: "Bradley and Terry 1952, Rank Analysis of Incomplete Block Designs",
    examples: &["{}"],
    laws: &[Law::KeepsOrder, Law::Probability],
    parameters: parameter_schema::<NoParameters>,
    build: |value| parameters::<NoParameters>(value).map(|_| Box::new(Sigmoid) as Box<dyn Transform>),
};

#[derive(Debug, Clone, Copy)]
struct Sigmoid;

impl Pointwise for Sigmoid {
    fn map(&self, value: f64) -> f64 {
        numeric::sigmoid(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, outcome};

    #[test]
    fn golden_g10_the_first_prefix() {
        assert_all_close(&[outcome(r#"["sigmoid"]"#, 2.0), outcome(r#"["sigmoid"]"#, -1e30)], &[0.880797, 0.0]);
    }
}
