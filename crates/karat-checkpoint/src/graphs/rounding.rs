//! What 16 bits make of a model, in 32: a stand-in for a graph whose operators a processor doesn't have.
//!
//! Weights, and what each operator of that graph gives out, are rounded to the 16 bits and widened again. What happens
//! within an operator stays in 32 bits, as it does there, and so do the last norm and the head.

use super::{Element, nodes::Nodes};

impl Nodes<'_> {
    /// What follows is rounded to this format, or, without one, isn't.
    pub(super) fn round_to(&mut self, rounding: Option<Element>) {
        self.rounding = rounding;
    }

    /// A value as an operator gives it out.
    pub(super) fn rounded(&mut self, value: &str) -> String {
        let Some(element) = self.rounding else { return value.to_owned() };
        let narrow = self.cast(value, element);
        self.as_numbers(&narrow)
    }

    /// Adds the steps within one operator, which round nothing.
    pub(super) fn within<T>(&mut self, add: impl FnOnce(&mut Self) -> T) -> T {
        let rounding = self.rounding.take();
        let added = add(self);
        self.rounding = rounding;
        added
    }
}
