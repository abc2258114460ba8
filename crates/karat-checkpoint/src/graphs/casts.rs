//! In which format a graph computes, and how values pass from one to another.

use super::{
    Element,
    nodes::{Attribute, Nodes},
};

/// What is added where a token may not look: large enough that its share is 0.
const UNSEEN: f64 = -1e9;
/// The same in half precision, which holds twice of it as well.
const UNSEEN_IN_HALF: f64 = -3e4;

impl Nodes<'_> {
    /// The format of what is computed.
    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// What follows is computed in this format.
    pub(super) fn compute_in(&mut self, element: Element) {
        self.element = element;
    }

    /// A value in another format, from one in the present format.
    pub(super) fn cast(&mut self, value: &str, element: Element) -> String {
        if element == self.element { value.to_owned() } else { self.cast_to(value, element) }
    }

    /// Whole numbers or truths as numbers of the present format.
    pub(super) fn as_numbers(&mut self, value: &str) -> String {
        self.cast_to(value, self.element)
    }

    /// A value in 32 bits, in which what follows is computed.
    pub(super) fn widened(&mut self, value: &str) -> String {
        let value = self.cast(value, Element::Float32);
        self.compute_in(Element::Float32);
        value
    }

    /// What `make` makes of a value in 32 bits, in the present format again.
    pub(super) fn in_32_bits(&mut self, value: &str, make: impl FnOnce(&mut Self, &str) -> String) -> String {
        let value = self.cast(value, Element::Float32);
        self.of_32_bits(|nodes| make(nodes, &value))
    }

    /// What `make` makes in 32 bits, in the present format.
    pub(super) fn of_32_bits(&mut self, make: impl FnOnce(&mut Self) -> String) -> String {
        let element = std::mem::replace(&mut self.element, Element::Float32);
        let made = make(self);
        let made = self.cast(&made, element);
        self.element = element;
        made
    }

    /// What is added to a likeness where a token may not look. The sum of two is a number as well.
    pub(super) fn unseen(&mut self) -> String {
        let unseen = if self.element == Element::Float16 { UNSEEN_IN_HALF } else { UNSEEN };
        self.number("unseen", unseen)
    }

    fn cast_to(&mut self, value: &str, element: Element) -> String {
        self.add_with("Cast", &[value], &[("to", Attribute::Int(element.data_type() as i64))])
    }
}
